"""A sweep's YAML file: what it spans, and what it says when it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import ConfigError
from offramp.studies.grid import Plan, check_trials
from offramp.studies.plan_models import read_keys
from offramp.studies.training.plan import SweepKeys, make_sweep

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted([*FOLDER.glob("sweet-*.yaml"), *FOLDER.glob("rules-*.yaml")])
SMALL: dict[str, Any] = {"backbones": ["minilm-l6"], "tasks": ["sst2"], "strategies": ["joint"]}


def test_a_sweep_is_the_product_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "spanned.yaml"
    path.write_text(
        """
        backbones: {minilm-l6: [1, 2, 4, 6], owner/other: }
        tasks: {sst2: [200, 500], rte: all}
        strategies:
          joint:
          linear: {strategy: joint, weights: linear, gates: true, criterion: learned}
        seeds: [0, 1]
        learning_rate: [5e-5, 1.0e-4]
        training: {epochs: 1, batch_size: 8, precision: auto}
        max_length: 64
        conflict: [0, 1]
        """
    )
    sweep = make_sweep(read_keys(path))
    assert sweep.name == "spanned"
    assert len(sweep.trials) == 2 * (2 + 1) * 2 * 2 * 2
    assert [trial.seed for trial in sweep.trials] == [0] * 24 + [1] * 24  # seed by seed
    first, last = sweep.trials[0], sweep.trials[-1]
    assert first.exits == (1, 2, 4, 6)
    assert (last.exits, last.train_size, last.learning_rate) == (None, None, 1e-4)
    assert (last.method.strategy, last.method.options) == ("joint", {"weights": "linear"})
    assert last.method.gates
    assert (first.rule, last.rule) == ("confidence", "learned")
    assert first.folder == Path("minilm-l6/sst2/joint/n200-lr5e-05-seed0")
    assert last.folder == Path("owner-other/rte/linear/nall-lr0.0001-seed1")
    assert last.options.strategy_options == {"weights": "linear"}
    assert (last.options.epochs, last.options.batch_size, last.options.learning_rate) == (1, 8, 1e-4)
    assert first.conflict == (0.0, 1.0)
    assert first.to_dict()["conflict"] == [0.0, 1.0]


def test_members_of_a_cascade_share_no_layer_to_conflict_in() -> None:
    sweep = make_sweep({**SMALL, "strategies": ["joint", "multi_model"], "conflict": 1})
    assert [trial.conflict for trial in sweep.trials] == [(1.0,), ()]
    assert "conflict" not in make_sweep(SMALL).trials[0].to_dict()  # as in older records


def test_learning_rates_by_method() -> None:
    sweep = make_sweep(
        {**SMALL, "strategies": ["joint", "sweet"], "learning_rate": {"joint": 5e-5, "sweet": 1e-4}}
    )
    assert [(c.method.name, c.learning_rate) for c in sweep.trials] == [("joint", 5e-5), ("sweet", 1e-4)]
    assert make_sweep(SMALL).trials[0].learning_rate is None


def test_a_method_has_training_options_of_its_own() -> None:
    own = {"strategy": "joint", "training": {"order": "random", "warmup": 0}}
    sweep = make_sweep(
        {**SMALL, "strategies": {"joint": None, "own": own}, "training": {"epochs": 1, "warmup": 0.5}}
    )
    shared, changed = (trial.options for trial in sweep.trials)
    assert (shared.order, shared.warmup, shared.epochs) == ("length", 0.5, 1)
    assert (changed.order, changed.warmup, changed.epochs) == ("random", 0, 1)
    cells = [trial.to_dict() for trial in sweep.trials]
    assert "training" not in cells[0]["method"]  # as in older records
    assert cells[1]["method"]["training"] == {"order": "random", "warmup": 0}


def test_a_local_encoder_is_known_by_its_last_name(tmp_path: Path) -> None:
    (trial,) = make_sweep({**SMALL, "backbones": [str(tmp_path / "enc")]}).trials
    assert trial.folder.parts[0] == "enc"
    assert trial.to_dict()["backbone"] == "enc"
    assert trial.backbone == str(tmp_path / "enc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strateges": ["joint"]}, "Did you mean 'strategies'"),
        ({"tasks": []}, "needs tasks"),
        ({"seeds": ["a"]}, "expected a whole number in seeds, got 'a'"),
        ({"train_sizes": [0]}, "expected a number of at least 1 in train_sizes, got 0"),
        (
            {"backbones": {"minilm-l6": [-1]}},
            "expected a number of at least 0 in backbones.minilm-l6, got -1",
        ),
        ({"conflict": [50]}, "expected a number of at most 1.0 in conflict, got 50: write 0.5 for 50 %"),
        ({"learning_rate": "fast"}, "a number in learning_rate, got 'fast'"),
        ({"learning_rate": [5]}, "expected a number below 1.0 in learning_rate, got 5"),
        ({"learning_rate": {"jiont": 1e-4}}, "unknown method in learning_rate 'jiont'"),
        ({"learning_rate": 1e-4, "tuned_on": "results/lr"}, "not both"),
        ({"training": {"epoch": 2}}, "Did you mean 'epochs'"),
        ({"training": {"learning_rate": 1e-4}}, "unknown option in training 'learning_rate'"),
        ({"training": {"batch_size": 0}}, "batch_size must be a whole number of at least 1, got 0"),
        ({"training": ["epochs"]}, r"expected values by name in training, got \['epochs'\]"),
        ({"training": {"epochs": "two"}}, "epochs must be a positive number, got 'two'"),
        ({"training": {"batch_size": 2.5}}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"strategies": {"joint": "linear"}}, "expected options by name in strategies.joint, got 'linear'"),
        (
            {"strategies": {"joint": {"gates": "no"}}},
            "expected true or false in strategies.joint.gates, got 'no'",
        ),
        ({"strategies": {"joint": {"criterion": 5}}}, "expected a name in strategies.joint.criterion, got 5"),
        ({"criterion": ["energy"]}, r"expected a name in criterion, got \['energy'\]"),
        ({"pooling": 5}, "expected a name in pooling, got 5"),
        ({"max_length": "64"}, "expected a whole number in max_length, got '64'"),
        ({"tuned_on": 5}, "expected a name in tuned_on, got 5"),
        ({"seeds": []}, "needs seeds"),
        ({"seeds": 10**12}, "expected a number of at most 2147483647 in seeds"),
        ({"strategies": ["joint"], "learning_rate": {"joint": 1e-4, "jiont": 1e-4}}, "Did you mean 'joint'"),
        ({"seeds": [0, 0]}, "two trials are the same"),
        (
            {"strategies": {"joint": {"tuned_as": "sweet"}}},
            "joint is tuned_as sweet, but the sweep has no tuned_on",
        ),
        ({"strategies": {"joint": {"training": {"ordr": "random"}}}}, "Did you mean 'order'"),
        ({"strategies": {"joint": {"training": {"order": "rndom"}}}}, "Did you mean 'random'"),
    ],
)
def test_what_cannot_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_sweep({**SMALL, **change})


@pytest.mark.parametrize(
    ("content", "message"), [("- a", "must hold keys of a plan"), ("a: [", "cannot be read as YAML")]
)
def test_files_that_are_no_sweep(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        make_sweep(read_keys(tmp_path / "x.yaml"))
    with pytest.raises(ConfigError, match="no sweep at"):
        make_sweep(read_keys(tmp_path / "y.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_repository(path: Path) -> None:
    keys = SweepKeys.read(read_keys(path))
    sweep = Plan(keys.name, tuple(keys.trials()))
    check_trials(sweep.trials)
    assert {trial.method.name for trial in sweep.trials}
    assert path.stem.startswith(sweep.name)  # some add to the results of another one


def test_there_are_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "sweet-lr",
        "sweet-minilm",
        "sweet-mpnet",
        "sweet-others",
        "sweet-sizes",
        "sweet-paper",
    }
