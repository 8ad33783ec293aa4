"""`~` means the home folder wherever a path is taken: on the command line, in YAML, in Python."""

from __future__ import annotations

import shutil
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import offramp
from offramp._core.errors import ConfigError, ModelError
from offramp._core.files import cache_dir
from offramp._core.run_files import RunFiles, pack
from offramp._core.trace import Trace
from offramp.cli.common import RuleOptions
from offramp.cli.main import COMMANDS, SUBCOMMANDS, run
from offramp.cli.paths import PathOption
from offramp.cli.tune import TargetOptions
from offramp.data.glue import default_folder
from offramp.engine.policy import Policy
from offramp.studies.grid import short
from offramp.studies.plan_models import read_keys
from offramp.studies.trained_models import trained_models

TARGETS = [target for target, _ in COMMANDS.values()]
TARGETS += [target for commands in SUBCOMMANDS.values() for target, _ in commands.values()]


@pytest.mark.parametrize("owner", [*TARGETS, RuleOptions, TargetOptions])
def test_every_path_of_a_command_is_read_by_one_function(owner: Any) -> None:
    if isinstance(owner, str):
        module, _, name = owner.partition(":")
        owner = getattr(import_module(module), name)
    hints = typing.get_type_hints(owner, include_extras=True)
    for name, hint in hints.items():
        assert "Path'" not in str(hint).replace(str(PathOption), ""), name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_everything_lands_in_the_home_folder(home: Path, tiny_data: Any, tiny_encoder: Path) -> None:
    shutil.copytree(tiny_encoder, home / "encoder")
    lines = ["text,label", *(f"{row['text']} {i},{row['label']}" for i, row in enumerate(tiny_data["train"]))]
    (home / "data.csv").write_text("\n".join(lines) + "\n")
    (home / "train.yaml").write_text("backbone: ~/encoder\noutput: ~/runs/x\nexits: [1, 2]\nmax_steps: 2\n")
    assert run(["train", "~/data.csv", "--config=~/train.yaml", "--strategy=joint"]) == 0
    assert (home / "runs/x/train.json").is_file()

    data = offramp.load_data("~/data.csv")
    model = offramp.load_model("~/runs/x")
    offramp.train(model, data, "joint", max_steps=2, output_dir="~/again", progress=False)
    assert (home / "again/model/config.json").is_file()
    trace = offramp.trace(model, data["train"])
    trace.save("~/traces/t.npz")
    assert len(Trace.load("~/traces/t.npz")) == len(trace)
    policy = offramp.tune(trace, "confidence", max_cost=0.9)
    policy.save("~/policy.json")
    assert Policy.load("~/policy.json") == policy
    model.save_pretrained("~/saved", policy=policy)
    engine = offramp.Engine("~/saved", "~/policy.json")
    assert engine.predict("a fine film")
    rows = data["validation"].select(range(2))
    result = offramp.attack("~/saved", rows, recipe="random-word", similarity="none", output_dir="~/attack")
    assert len(result) == len(offramp.AttackResult.load("~/attack")) == 2
    pack("~/runs", "~/packed")
    assert [record["command"] for record in RunFiles("~/packed").records()] == ["train"]
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_precedes_a_hub_id(home: Path, tiny_encoder: Path) -> None:
    shutil.copytree(tiny_encoder, "org/name")
    model = offramp.MultiExitForSequenceClassification.from_backbone("org/name", [1], labels=["no", "yes"])
    model.save_pretrained("org/model")
    assert offramp.load_model("org/model").exit_layers == model.exit_layers
    with pytest.raises(ModelError, match="no model at org/other: no such folder"):
        offramp.load_model("org/other")


def test_paths_in_plans(home: Path) -> None:
    (home / "sweep").mkdir()
    with pytest.raises(ConfigError, match=f"no trained models below {home / 'sweep'}"):
        trained_models("~/sweep")
    with pytest.raises(ConfigError, match=f"no sweep at {home / 'plan.yaml'}"):
        read_keys("~/plan.yaml")
    assert [short(name) for name in ("~/d.csv", "/data/d.csv", "data/d.csv", "sst2")] == [
        "d.csv",
        "d.csv",
        "data/d.csv",
        "sst2",
    ]


@pytest.mark.parametrize("variable", ["OFFRAMP_GLUE", "OFFRAMP_CACHE"])
def test_paths_in_the_environment(variable: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "glue" / "RTE").mkdir(parents=True)
    monkeypatch.setenv(variable, "~/glue")
    read = {"OFFRAMP_GLUE": lambda: default_folder("rte"), "OFFRAMP_CACHE": lambda: cache_dir() / "RTE"}
    assert read[variable]() == home / "glue" / "RTE"
