"""Packed studies: the reports are those of the loose folders to the byte, and recorded trials do not run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from offramp._core.errors import ConfigError
from offramp._core.run_files import GRADIENT_FILE, GRADIENTS, ROWS, TRACES, RunFiles, pack, write_gradients
from offramp.attacks import AttackResult
from offramp.cli.main import run
from offramp.studies.attacks.plan import make_attack_plan
from offramp.studies.attacks.report import attack_report
from offramp.studies.attacks.transfer import ROWS as TRANSFER_ROWS
from offramp.studies.attacks.transfer import TransferTrial
from offramp.studies.grid import PLANNED, is_recorded, missing_trials, run_grid
from offramp.studies.trained_models import trained_models
from offramp.studies.training.plan import make_sweep
from offramp.studies.training.report import study_report
from tests.studies.made_up_attacks import made_up_trials, record_study, record_transfer
from tests.studies.made_up_trials import SWEEP, record_all
from tests.studies.test_study_conflict import products_of


def record_training_study(folder: Path) -> None:
    for trial in record_all(folder).trials:
        if trial.method.name == "joint":
            products = products_of(trial.seed)
            write_gradients(folder / trial.folder / GRADIENT_FILE, {0: products, 100: products})


def record_attack_study(folder: Path) -> None:
    record_transfer(folder, record_study(folder))


@pytest.mark.parametrize(
    ("record", "report", "tables"),
    [
        (record_training_study, study_report, {TRACES, GRADIENTS}),
        (record_attack_study, attack_report, {ROWS}),
    ],
)
def test_the_report_of_a_packed_study_is_that_of_the_loose_one(
    record: Callable[[Path], None], report: Callable[..., dict[str, Path]], tables: set[str], tmp_path: Path
) -> None:
    loose, packed = tmp_path / "loose" / "study", tmp_path / "packed" / "study"
    record(loose)
    pack(loose, packed)
    assert {path.name for path in packed.iterdir()} == {"records.jsonl", *tables}
    before = report(loose, tmp_path / "before", resamples=30)
    after = report(packed, tmp_path / "after", resamples=30)
    assert len(before) > 5
    assert {name: path.read_bytes() for name, path in before.items()} == {
        name: path.read_bytes() for name, path in after.items()
    }


def test_a_packed_sweep_does_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = record_all(tmp_path / "loose")
    pack(tmp_path / "loose", tmp_path / "packed")
    monkeypatch.setattr("offramp.training.run.train", lambda *_, **__: pytest.fail("a recorded trial runs"))
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(SWEEP))
    command = ["sweep", str(config), "--output", str(tmp_path / "packed"), "--json"]
    for arguments in ([*command, "--dry-run"], command):
        assert run(arguments) == 0
        statuses = json.loads(capsys.readouterr().out)
        assert statuses["done"] == statuses["trials"] == len(sweep.trials)
    assert (tmp_path / "packed" / PLANNED).exists()
    assert missing_trials(tmp_path / "packed") == []
    assert len(trained_models(tmp_path / "packed")) == len(sweep.trials)
    other = make_sweep({**SWEEP, "criterion": "entropy"}).trials[0]
    with pytest.raises(ConfigError, match="holds another trial"):
        is_recorded(other, RunFiles(tmp_path / "packed"))


def test_transfers_read_the_attacks_of_a_packed_study(trained: Any, tmp_path: Path) -> None:
    keys = {**trained["keys"], "tasks": {trained["task"]: 0}, "criteria": ["confidence"]}
    loose, packed = tmp_path / "loose", tmp_path / "packed"
    attacks = make_attack_plan({**keys, "recipes": ["random-word"]})
    plan = make_attack_plan({**keys, "recipes": ["random-word"], "transfer": True})
    assert run_grid(attacks, loose) == {}
    pack(loose, packed)
    statuses: list[tuple[str, str]] = []
    for folder in (loose, packed):
        assert (
            run_grid(plan, folder, on_status=lambda trial, status, _: statuses.append((str(trial), status)))
            == {}
        )
    running = [name for name, status in statuses if status == "running"]
    transfers = [trial for trial in plan.trials if isinstance(trial, TransferTrial)]
    assert running == [str(trial) for trial in transfers] * 2
    for trial in transfers:
        path = trial.folder / TRANSFER_ROWS
        assert (loose / path).read_bytes() == (packed / path).read_bytes()


def test_texts_are_dropped_before_packing(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    trial = record_study(loose, made_up_trials()[:1])[0]
    pack(loose, tmp_path / "packed")
    with pytest.raises(
        ConfigError, match="is packed with its texts: drop them from the runs, and pack those"
    ):
        trial.drop_texts(RunFiles(tmp_path / "packed"))
    trial.drop_texts(RunFiles(loose))
    assert "text" not in AttackResult.load(loose / trial.folder).table.column_names
    shutil.rmtree(tmp_path / "packed")
    pack(loose, tmp_path / "packed")
    trial.drop_texts(RunFiles(tmp_path / "packed"))
    assert not (tmp_path / "packed" / trial.folder).exists()
