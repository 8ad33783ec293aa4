"""Many examples: what is held in memory, and one attack over the workers of a cluster."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from offramp._core.errors import ConfigError, OfframpError
from offramp.attacks import AttackResult, attack
from offramp.attacks import store as store_module
from offramp.attacks.examples import texts_fingerprint
from offramp.attacks.prepared import PreparedAttack, _give_up
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import QueryBudget

FAST: dict[str, Any] = {"top_n": 4, "beam": 1, "rounds": 1, "similarity": "none", "progress": False}
# The clock, NaN, and the noise of floats in other batches.
TIMED = ["seconds", "similarity", "clean_probabilities", "adversarial_probabilities"]


@pytest.fixture(scope="module")
def setting(make_model: Any, policy_for: Any) -> tuple[Any, Any]:
    model = make_model()
    return model, policy_for(model)


def many(count: int) -> Any:
    words = ("good", "bad", "dull", "funny")
    texts = [f"a {words[i % 4]} film number {i} was it" for i in range(count)]
    return Dataset.from_dict(
        {"id": list(range(count, 0, -1)), "text": texts, "label": [i % 2 for i in range(count)]}
    )


def held(setting: Any, count: int, folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Most texts and accounts alive at once, counted before each group of an attack."""
    counts, group = [], PreparedAttack.attack_group

    def counting(*given: Any) -> Any:
        gc.collect()
        alive = gc.get_objects()
        counts.append([sum(type(o) is kind for o in alive) for kind in (AttackedText, QueryBudget)])
        return group(*given)

    with monkeypatch.context() as patched:
        patched.setattr(PreparedAttack, "attack_group", counting)
        result = attack(
            setting[0],
            many(count),
            recipe="random-char",
            policy=setting[1],
            group=4,
            output_dir=folder,
            **FAST,
        )
    assert result.column("id").tolist() == list(range(count, 0, -1))
    texts, accounts = zip(*counts, strict=True)
    return max(texts), max(accounts)


def test_memory_does_not_grow_with_the_examples(
    setting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = held(setting, 12, tmp_path / "few", monkeypatch)
    assert held(setting, 48, tmp_path / "many", monkeypatch) == few
    assert few[0] < 12 + 4  # one group's originals, and what the fixtures hold


def test_rows_leave_memory_and_come_back_in_order(
    setting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHUNK", 5)
    stores = []
    add = store_module.Store.add
    monkeypatch.setattr(store_module.Store, "add", lambda self, rows: stores.append(self) or add(self, rows))
    data = many(17)
    one = attack(
        setting[0], data, recipe="random-char", policy=setting[1], group=4, output_dir=tmp_path / "a", **FAST
    )
    assert stores[-1]._rows == {}
    assert len(stores[-1].done) == 17
    whole = attack(setting[0], data, recipe="random-char", policy=setting[1], **FAST)
    assert one.table.drop_columns(TIMED) == whole.table.drop_columns(TIMED)
    assert AttackResult.load(tmp_path / "a").metadata == one.metadata == whole.metadata


def test_the_fingerprint_of_texts_is_that_of_older_folders() -> None:
    import hashlib

    rows = [(3, ("a", "b\ud800")), (1, ("",))]
    expected = hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    assert texts_fingerprint(iter(rows)) == expected
    assert texts_fingerprint([]) == hashlib.sha256(b"[]").hexdigest()[:16]


def test_a_group_that_kills_its_workers_ends_the_attack() -> None:
    _give_up(3, [7, 8])
    with pytest.raises(OfframpError, match="the group that starts with example 7 died 4 times"):
        _give_up(4, [7, 8])


def workers_of(parent: int) -> list[int]:
    """Processes of ray that have a job of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Worker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # ray's own
@pytest.mark.parametrize("recipe", ["same-word", "waffle-universal"])
def test_shards_give_what_one_process_gives(recipe: str, setting: Any, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    data = many(40 if recipe == "same-word" else 200)  # a trigger takes a group milliseconds
    one = attack(setting[0], data, recipe=recipe, policy=setting[1], group=4, **FAST)
    killed: list[int] = []

    def kill_one() -> None:
        parts = tmp_path / recipe / "parts"
        for _ in range(12000):
            time.sleep(0.005)
            if len(list(parts.glob("*.parquet"))) >= 2 and (pids := workers_of(os.getpid())):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
                return

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    try:
        killer = threading.Thread(target=kill_one)
        killer.start()
        seen: list[int] = []
        options = {**FAST, "progress": lambda done, total: seen.append(done)}
        many_processes = attack(
            setting[0],
            data,
            recipe=recipe,
            policy=setting[1],
            group=4,
            output_dir=tmp_path / recipe,
            workers=2,
            **options,
        )
        killer.join()
        with pytest.raises(ConfigError, match="workers must be a whole number of at least 1, got 0"):
            attack(setting[0], data, recipe=recipe, policy=setting[1], workers=0, **FAST)
    finally:
        ray.shutdown()
    assert len(killed) == 1
    assert many_processes.table.drop_columns(TIMED) == one.table.drop_columns(TIMED)
    assert many_processes.metadata == one.metadata
    assert seen == sorted(set(seen))  # no group was entered twice
