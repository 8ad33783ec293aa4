"""An attack study that runs on tiny trained models: planned, stopped, resumed, transferred."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock

from offramp._core.errors import ConfigError, DataError
from offramp._core.records import read_record
from offramp._core.run_files import RunFiles
from offramp.attacks import RECIPES, AttackResult, Options, transfer
from offramp.attacks.prepared import PreparedAttack
from offramp.cli.main import run
from offramp.data import load_data
from offramp.studies.attacks import victims
from offramp.studies.attacks.plan import AttackStudyKeys, is_attack_plan, make_attack_plan
from offramp.studies.attacks.transfer import TransferTrial, transfer_trials
from offramp.studies.grid import LOCK, is_recorded, run_grid, run_trial
from offramp.studies.plan_models import read_keys
from offramp.studies.training.plan import SweepKeys
from offramp.studies.training.results import is_sweep, load_results
from tests.studies.made_up_attacks import made_up_trials

CONFIGS = Path(__file__).parents[2] / "configs"


class Stop(BaseException):
    """Stands for a kill."""


def plan_of(trained: dict[str, Any], **changes: Any) -> Any:
    return make_attack_plan({**trained["keys"], **changes})


def test_a_sweep_whose_models_were_kept_is_still_a_sweep(trained: Any) -> None:
    assert is_sweep(trained["models"])
    assert len(load_results(trained["models"])) == 4


def test_the_trials_of_a_plan(trained: Any) -> None:
    trials = plan_of(trained).trials
    assert len(trials) == 2 * 2 * 2 * 2
    assert [trial.victim.seed for trial in trials] == [0] * 8 + [1] * 8  # balanced where it is stopped
    assert trials[0].folder.parts[-2:] == ("confidence", "same-word")
    assert (trials[1].attack.recipe, trials[1].column) == ("random-word", "floor")
    assert trials[0].row.endswith("reviews.csv, joint")
    assert all(trial.victim.kept for trial in trials)
    described = trials[0].to_dict()
    assert trained["models"].parent.as_posix() not in str(described)
    assert described["setting"]["target"] == {"max_accuracy_drop": 0.01}
    assert {trial.method for trial in plan_of(trained, strategies=None).trials} == {"joint", "sweet"}
    every = plan_of(trained, tasks=[trained["task"]])
    assert {trial.victim.seed for trial in every.trials} == {0, 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "x"}, "unknown key of an attack study 'recipe'. Did you mean 'recipes'"),
        ({"criteria": None}, "an attack study needs criteria"),
        ({"criteria": "patient"}, "Did you mean 'patience'"),
        ({"criteria": ["learned"]}, "needs gates, but .*sweet.* was trained without: .*others.*learned"),
        ({"models": "nowhere"}, "no trained models below nowhere: .*--keep-models"),
        ({"models": {"learnt": "x"}}, "unknown criterion in models 'learnt'. Did you mean 'learned'"),
        ({"models": {"learned": "x"}}, "models names no sweep for 'confidence': add it, or 'others'"),
        (
            {"tasks": {"sst2": [0]}},
            "no model of .*, sst2, joint, seed 0 in .*: it has reviews.csv/joint/seed0",
        ),
        ({"strategies": "two_stage"}, "no model of .*two_stage, seed 0"),
        ({"train_size": 7}, "no model below .* has that train_size"),
        ({"max_cost": 0.5, "max_accuracy_drop": 0.1}, "max_accuracy_drop or for max_cost, not both"),
        ({"examples": 0}, "expected a number of at least 1 in examples, got 0"),
        ({"split": "train"}, "expected 'validation' or 'test' in split, got 'train'"),
        ({"transfer": ["same-wort"]}, "unknown recipe in transfer 'same-wort'. Did you mean 'same-word'"),
        ({"recipes": {"a b": None, "a-b": None}}, "two trials are the same"),
        ({"recipes": {"same-word": 5}}, "expected options by name in recipes.same-word, got 5"),
        ({"options": "rounds"}, "expected values by name in options, got 'rounds'"),
        (
            {"max_accuracy_drop": 5},
            "max_accuracy_drop is a share between 0 and 1, got 5: write 0.05 for 5 points",
        ),
        ({"max_accuracy_drop": "5%"}, "expected a number in max_accuracy_drop, got '5%': write 0.05 for 5 %"),
        ({"max_cost": 50}, "max_cost is a share above 0 and at most 1, got 50: write 0.5 for 50 %"),
        ({"max_accuracy_drop": "little"}, "expected a number in max_accuracy_drop, got 'little'"),
        ({"train_size": "some"}, "expected a whole number in train_size, got 'some'"),
    ],
)
def test_plans_that_cannot_work(changes: Any, message: str, trained: Any) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        plan_of(trained, **changes)


def test_recipes_and_options_are_checked_before_anything_runs(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'same-word'"):
        run_grid(plan_of(trained, recipes=["same-ward"]), tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'rounds'"):
        run_grid(plan_of(trained, options={"round": 1}), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("same-*.yaml")), ids=lambda path: path.stem)
def test_the_configs_of_the_repository(path: Path) -> None:
    content = read_keys(path)
    assert is_attack_plan(content)
    keys = AttackStudyKeys.read(content)
    for name, own in keys.recipes.items():
        assert ((own and own.recipe) or name) in RECIPES
        Options.of(**((own and own.model_extra) or {}))
    for folder in keys.models.values():
        models = SweepKeys.read(read_keys(CONFIGS / f"{Path(folder).name}.yaml"))
        assert set(models.tasks) >= set(keys.tasks)
        assert set(models.strategies) >= set(keys.strategies)


def test_trials_are_those_of_committed_records() -> None:
    """A committed folder resumes only if its trials describe themselves as they did when they were recorded."""
    trial = made_up_trials()[0]
    victim = {"sweep": "toy", "folder": "m/sst2/joint/nall-seed0", "backbone": "minilm-l6", "task": "sst2"}
    victim |= {"method": "joint", "strategy": "joint", "train_size": None, "learning_rate": None, "seed": 0}
    attack = {"name": "same-word", "recipe": "same-word", "options": {}}
    setting = {"target": {"max_accuracy_drop": 0.01}, "examples": 40, "split": "validation", "seed": 0}
    shared = {"attack": attack, "setting": {**setting, "similarity": "use"}}
    assert trial.to_dict() == {"victim": victim, "criterion": "confidence", **shared}
    assert transfer_trials([trial])[0].to_dict() == {
        "transfer_to": victim,
        "criteria": ["confidence"],
        "attacks": ["m/sst2/joint/nall-seed0/confidence/same-word"],
        **shared,
    }


def test_a_model_that_was_not_kept_is_refused(trained: Any, tmp_path: Path) -> None:
    record = next(Path(trained["models"]).rglob("joint/*seed0/record.json"))
    copy = tmp_path / record.relative_to(trained["models"])
    copy.parent.mkdir(parents=True)
    copy.write_text(record.read_text())
    with pytest.raises(ConfigError, match="has a record but no model: train it with .*--keep-models"):
        plan_of(trained, models=str(tmp_path), strategies="joint", tasks={trained["task"]: 0})


def test_learned_gates_come_from_a_sweep_of_their_own(trained: Any) -> None:
    models = {"others": trained["keys"]["models"], "learned": trained["keys"]["models"]}
    plan = plan_of(trained, models=models, strategies="joint", criteria=["confidence", "learned"])
    assert {trial.criterion for trial in plan.trials} == {"confidence", "learned"}
    assert all(trial.victim.gates for trial in plan.trials if trial.criterion == "learned")


def test_what_a_trial_leaves_behind(trained: Any, tmp_path: Path) -> None:
    trial = plan_of(trained).trials[0]
    assert run_trial(trial, tmp_path) == "done"
    folder = tmp_path / trial.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "attack.parquet",
        "manifest.json",
        "record.json",
    ]
    record, result = read_record(folder / "record.json"), AttackResult.load(folder)
    assert record["config"]["cell"] == trial.to_dict()
    changes = result.column("fluency_change")
    assert np.isfinite(changes).all()
    assert (changes[result.column("words_changed") == 0] == 0).all()
    metrics = record["metrics"]
    assert metrics["examples"] == len(result) == 6
    assert metrics["clean_depth"] == pytest.approx(np.mean(result.column("clean_layer")))
    wanted = (
        "adversarial_cost",
        "efficiency_drop",
        "words_changed",
        "forward_queries",
        "seconds",
        "doubts",
        "tuned",
    )
    assert set(wanted) <= set(metrics)
    assert metrics["clean_accuracy"] == pytest.approx(
        np.mean(result.column("clean_prediction") == result.column("label"))
    )
    assert [path.name for path in folder.parents[1].iterdir() if path.is_file()] == ["calibration.npz"]
    assert result.metadata["policy"]["criterion"]["threshold"] == metrics["threshold"]


def test_a_killed_study_resumes_inside_a_trial(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(trained, tasks={trained["task"]: 0}, examples=36, recipes=["random-word"])
    assert run_grid(plan, tmp_path / "whole") == {}
    attacked: list[int] = []
    traced: list[int] = []
    group, tracing = PreparedAttack.attack_group, victims.calibration_trace

    def stopping(prepared: Any, examples: Any) -> Any:
        if len(attacked) == 36 + 16:  # inside the second trial
            raise Stop
        attacked.extend(e.id for e in examples)
        return group(prepared, examples)

    def counting(model: Any, *rest: Any) -> Any:
        import offramp.inference.tracing as module

        original = module.trace
        monkeypatch.setattr(module, "trace", lambda *a, **o: traced.append(1) or original(*a, **o))
        try:
            return tracing(model, *rest)
        finally:
            monkeypatch.setattr(module, "trace", original)

    monkeypatch.setattr(PreparedAttack, "attack_group", stopping)
    monkeypatch.setattr(victims, "calibration_trace", counting)
    with pytest.raises(Stop):
        run_grid(plan, tmp_path / "a")
    assert [is_recorded(trial, RunFiles(tmp_path / "a")) for trial in plan.trials] == [
        True,
        False,
        False,
        False,
    ]
    monkeypatch.setattr(
        PreparedAttack, "attack_group", lambda p, e: attacked.extend(i.id for i in e) or group(p, e)
    )
    assert run_grid(plan, tmp_path / "a") == {}
    assert len(attacked) == 4 * 36  # no example twice
    assert len(traced) == 2  # once a model, however many criteria
    for trial in plan.trials:
        whole, resumed = (AttackResult.load(tmp_path / name / trial.folder) for name in ("whole", "a"))
        timed = ["seconds", "similarity", "clean_probabilities", "adversarial_probabilities"]
        assert whole.table.drop_columns(timed) == resumed.table.drop_columns(timed)
    statuses: list[str] = []
    assert run_grid(plan, tmp_path / "a", on_status=lambda trial, status, _: statuses.append(status)) == {}
    assert set(statuses) == {"done"}


def test_a_trial_that_runs_elsewhere_and_a_changed_trial(trained: Any, tmp_path: Path) -> None:
    trial = plan_of(trained).trials[0]
    (tmp_path / trial.folder).mkdir(parents=True)
    with FileLock(tmp_path / trial.folder / LOCK):
        assert run_trial(trial, tmp_path) == "elsewhere"
    run_trial(trial, tmp_path)
    other = plan_of(trained, options={"rounds": 2, "top_n": 4, "beam": 1}).trials[0]
    with pytest.raises(ConfigError, match=r"another trial \(rounds .* there, 2 here"):
        is_recorded(other, RunFiles(tmp_path))


def test_labels_of_other_data_are_refused(trained: Any, tmp_path: Path) -> None:
    trial = plan_of(trained).trials[0]
    data = load_data(trained["task"])
    other = type(data)(data.name, data.splits, ("x", "y"), data.kind, data.pair, data.metrics)
    with pytest.raises(DataError, match="has the labels .*, but .* has 'x', 'y': give data"):
        trial.load_victim(other)


def test_transfer_matrices(trained: Any, tmp_path: Path) -> None:
    recipes = {"random-word": None, "waffle-universal": {"trigger": "film"}}
    plan = plan_of(trained, recipes=recipes, tasks={trained["task"]: 0}, transfer=True)
    transfers = [trial for trial in plan.trials if isinstance(trial, TransferTrial)]
    assert len(transfers) == 2 * 2  # models × recipes
    assert run_grid(plan, tmp_path) == {}
    data = load_data(trained["task"])
    for trial in transfers:
        rows = pq.read_table(tmp_path / trial.folder / "transfer.parquet").to_pylist()
        assert len(rows) == 4 * 2  # attacks of (two models × two criteria), under two criteria
        model = trial.load_victim(data)
        for row in rows:
            key = (row["source_method"], row["source_criterion"])
            source = next(a for a in trial.attacks if (a.method, a.criterion) == key)
            policy = trial.tuned(model, data, row["criterion"], tmp_path)
            moved = transfer(AttackResult.load(tmp_path / source.folder), model, policy)
            assert row["examples"] == len(moved)
            for side in ("clean", "adversarial"):
                assert row[f"{side}_depth"] == pytest.approx(np.mean(moved.column(f"{side}_layer")))
                cost = moved.column(f"{side}_cost").sum() / moved.column(f"{side}_full_cost").sum()
                assert row[f"{side}_cost"] == pytest.approx(cost)
            if source.victim == trial.victim and source.criterion == row["criterion"]:
                own = AttackResult.load(tmp_path / source.folder)
                assert row["adversarial_depth"] == pytest.approx(np.mean(own.column("adversarial_layer")))
    with pytest.raises(DataError, match="has not been attacked yet"):
        transfers[0].run(tmp_path / "elsewhere", load_data)


def test_the_commands(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = tmp_path / "same-toy.yaml", tmp_path / "out"
    keys = {
        **trained["keys"],
        "tasks": {trained["task"]: 0},
        "criteria": ["confidence"],
        "transfer": ["floor"],
    }
    config.write_text(yaml.safe_dump(keys))
    arguments = ["sweep", str(config), "--output", str(output), "--json"]
    assert run([*arguments, "--dry-run"]) == 0
    statuses = json.loads(capsys.readouterr().out)
    assert (statuses["trials"], statuses["waiting"]) == (6, 6)
    assert not output.exists()
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["done"] == 6
    assert "/confidence/same-word: done" in captured.err
    assert "/transfer/floor: done" in captured.err
    assert run(["report", str(output)]) == 0
    claims = (output / "report" / "tables" / "claims.md").read_text()
    assert run([*arguments, "--drop-texts"]) == 0
    capsys.readouterr()
    rows = [pq.read_table(path) for path in output.rglob("attack.parquet")]
    assert len(rows) == 4
    assert not any("text" in name for table in rows for name in table.column_names)
    assert run(["report", str(output)]) == 0
    assert (output / "report" / "tables" / "claims.md").read_text() == claims
    moved = next(path for path in output.rglob("transfer.parquet")).parent
    shutil.rmtree(moved)
    assert run(arguments) == 2
    assert "texts of this attack were dropped" in capsys.readouterr().err
    config.write_text(yaml.safe_dump({**keys, "recipes": ["same-wrod"], "transfer": False}))
    assert run(["sweep", str(config), "--dry-run"]) == 2
    assert "Did you mean" in capsys.readouterr().err
