"""An exported folder gives what its model gives, at every batch size, and says how far it does."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, CriterionError, DataError, ModelError
from offramp.criteria import make_criterion
from offramp.data import TextData
from offramp.engine.agreement import run_reference
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.engine.segments import trace_segments
from offramp.exporting.fold import fold_attention
from offramp.exporting.parity import compare_exports, refuse_wrong_graph
from offramp.exporting.run import Texts, export, export_model
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from offramp.model.encoding import TextEncoder
from tests.backbones.backbone_zoo import ZOO, make, save

TEXTS = ["a good film", "", "the plot was very dull " * 9, "naïve 東京 \x00 \ud800", "?", "a"]
KINDS = ["multi_exit", "cascade"]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_gates_and_costs_are_the_models(
    kind: str, exports: dict[str, Path], tiny_models: dict[str, Any], tiny_data: Any
) -> None:
    expected = trace(tiny_models[kind], tiny_data["validation"])
    segments = OnnxSegments(exports[kind], threads=1)
    encoder = segments.encoder()
    for batch_size in (1, 7, 64):
        found = trace_segments(
            segments, encoder(tiny_data["validation"]["text"]), encoder.pad_values, batch_size
        )
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
        np.testing.assert_allclose(found.gates, expected.gates, atol=1e-5)
        np.testing.assert_array_equal(found.flops, expected.flops)
        np.testing.assert_array_equal(found.full_flops, expected.full_flops)


@pytest.mark.parametrize("kind", [*KINDS, "int8"])
def test_the_engine_gives_what_the_slow_twin_gives(
    kind: str, exports: dict[str, Path], tiny_data: Any
) -> None:
    segments = OnnxSegments(exports[kind], threads=1)
    texts = [*tiny_data["validation"]["text"], *TEXTS]
    slow = run_reference(segments, segments.policy(), segments.encoder()(texts))
    assert len(np.unique(slow.exit)) > 1
    for batch_size in (1, 5, 64):
        fast = Engine(exports[kind], batch_size=batch_size, threads=1).decide(texts)
        np.testing.assert_array_equal(fast.exit, slow.exit)
        np.testing.assert_array_equal(fast.prediction, slow.prediction)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_torch_engine(
    kind: str, exports: dict[str, Path], tiny_models: dict[str, Any]
) -> None:
    segments = OnnxSegments(exports[kind], threads=1)
    ours = Engine(exports[kind], backend="onnx", threads=1).predict(TEXTS)
    theirs = Engine(tiny_models[kind], segments.policy()).predict(TEXTS)
    for one, two in zip(ours, theirs, strict=True):
        assert (one.label, one.exit_layer, one.cost) == (two.label, two.exit_layer, two.cost)
        assert one.probability == pytest.approx(two.probability, abs=1e-5)
    assert Engine(exports[kind]).predict([]) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.text(max_size=80), st.text(max_size=80)), max_size=4), paired=st.booleans())
def test_the_encoder_is_the_models_own(
    rows: list[tuple[str, str]], paired: bool, exports: dict[str, Path], tiny_models: dict[str, Any]
) -> None:
    theirs = TextEncoder.of(tiny_models["multi_exit"])
    ours = OnnxSegments(exports["multi_exit"], threads=1, verify=False).encoder()
    texts, pairs = [a for a, _ in rows], [b for _, b in rows] if paired else None
    assert ours(texts, pairs) == theirs(texts, pairs)
    assert ours.pad_values == theirs.pad_values


def test_the_manifest_says_how_the_export_compares(exports: dict[str, Path]) -> None:
    for kind, precise in (("multi_exit", True), ("cascade", True), ("int8", False)):
        manifest = Manifest.load(exports[kind])
        assert manifest.checks["examples"] == 48
        assert (manifest.checks["max_logit_difference"] < 1e-5) == precise
        assert manifest.checks["batch_difference"] < 1e-5
        assert manifest.checks["engine_differs_from_trace"] == 0
        assert {"changed_exits", "changed_labels", "changed_answers"} <= set(manifest.checks)
        assert {"torch", "onnxruntime", "offramp"} <= set(manifest.versions)
        assert {path.name for path in exports[kind].iterdir()} - {"README.md"} == {
            *manifest.files,
            "manifest.json",
        }


def test_int8_is_int8_and_near(exports: dict[str, Path]) -> None:
    import onnx

    manifest = Manifest.load(exports["int8"])
    assert manifest.precision == "int8"
    for part in manifest.segments:
        graph = onnx.load(exports["int8"] / part.file).graph
        quantised = {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.INT8}
        assert quantised
    assert manifest.checks["max_logit_difference"] < 0.1


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "datasets", "accelerate", "safetensors", "onnx"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import json
from offramp import Engine
found = Engine(sys.argv[1], threads=1).predict(["a good film", "dull", ""])
print(json.dumps([[p.label, p.exit_layer] for p in found]))
"""


@pytest.mark.parametrize("kind", ["multi_exit", "cascade", "int8"])
def test_a_folder_runs_without_torch_and_transformers(kind: str, exports: dict[str, Path]) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(exports[kind])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = Engine(exports[kind], threads=1).predict(["a good film", "dull", ""])
    assert json.loads(done.stdout) == [[p.label, p.exit_layer] for p in here]


def test_from_the_command_line(tiny_encoder: Path, tiny_data: Any, tmp_path: Path, capsys: Any) -> None:
    """A model with a single exit, in int8, from a file of one's own."""
    from offramp.cli.main import run

    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2], max_length=24).eval()
    model.save_pretrained(tmp_path / "model")
    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    command = ["export", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--precision", "int8"]
    assert run(command) == 2
    assert "give --data" in capsys.readouterr().err
    assert run([*command, "--data", str(tmp_path / "own.csv"), "--examples", "20", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["checks"]["max_logit_difference"] < 0.1
    policy = Policy(make_criterion("confidence"), (2,))
    assert Engine(tmp_path / "out", policy).predict(["a film"])[0].exit_layer == 2


@pytest.mark.slow
def test_a_folder_runs_in_a_fresh_environment(exports: dict[str, Path], tmp_path: Path) -> None:
    import offramp

    root = Path(offramp.__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{root}[onnx]"], check=True)
    probe = (
        "import importlib.util as u; assert not u.find_spec('torch') and not u.find_spec('transformers')\n"
    )
    code = probe + WITHOUT_TORCH
    done = subprocess.run(
        [python, "-c", code, str(exports["int8"])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3


def test_misuse(
    tiny_models: dict[str, Any], exports: dict[str, Path], tiny_data: Any, tmp_path: Path
) -> None:
    model = tiny_models["multi_exit"]
    with pytest.raises(ConfigError, match="Did you mean 'int8'"):
        export_model(model, tmp_path / "a", precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 16, got 0"):
        export_model(model, tmp_path / "a", precision="int8")
    texts = Texts(tiny_data["calibration"].select(range(3)))
    with pytest.raises(ConfigError, match="at least 16, got 3"):
        export_model(model, tmp_path / "a", precision="int8", texts=texts)
    with pytest.raises(CriterionError, match="tune it again"):
        export_model(model, tmp_path / "a", policy=Policy(make_criterion("confidence"), (1, 2)))
    with pytest.raises(DataError, match="expected a column 'text'"):
        export_model(model, tmp_path / "a", texts=Texts(comparison=Dataset.from_dict({"sentence": ["a"]})))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="holds other files than an export"):
        export_model(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    # The folder of an attack has a manifest.json too, and somebody may have put a file into an export.
    (tmp_path / "mine" / "manifest.json").write_text('{"recipe": "same-word"}')
    with pytest.raises(ModelError, match="holds other files than an export"):
        export_model(model, tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").write_text((exports["multi_exit"] / "manifest.json").read_text())
    with pytest.raises(ModelError, match=r"other files than an export \(thesis\.txt\)"):
        export_model(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert not (tmp_path / "a").exists()
    with pytest.raises(ModelError, match="more than rounding explains"):
        refuse_wrong_graph({"max_logit_difference": float("nan")})


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_every_architecture_exports(name: str, pooling: str, tmp_path: Path) -> None:
    encoder = save(make(name), tmp_path / "encoder")
    options: dict[str, Any] = {"pooling": pooling, "max_length": 16}
    model = MultiExitForSequenceClassification.from_backbone(str(encoder), [1, 3], **options).eval()
    manifest = export_model(model, tmp_path / "out", policy=Policy(make_criterion("confidence", 0.6), (1, 3)))
    assert manifest.checks["max_logit_difference"] < 1e-4
    assert manifest.checks["batch_difference"] < 1e-4
    assert manifest.checks["engine_differs_from_trace"] == 0
    for part in manifest.segments:  # what int8 makes of attention changes nothing, whatever the architecture
        path = tmp_path / "out" / part.file
        onnx.save(fold_attention(onnx.load(path)), path)
    checks = compare_exports(
        model, tmp_path / "out", TextEncoder.of(model)([text for text in TEXTS if text]), None
    )
    assert checks["max_logit_difference"] < 1e-4
    assert checks["batch_difference"] < 1e-4


def test_the_policy_of_the_model_travels_with_its_export(
    tiny_models: dict[str, Any], tiny_data: Any, tmp_path: Path
) -> None:
    model = deepcopy(tiny_models["cascade"])
    policy = Policy(make_criterion("margin", 0.25), (1, 3))
    model.save_pretrained(tmp_path / "model", policy=policy)
    labels = ("no", "so so", "yes")
    data = TextData("tiny", dict(tiny_data), labels, "classification", False, ("accuracy",))
    manifest = export(tmp_path / "model", tmp_path / "out", data=data, compared_examples=20, progress=False)
    assert manifest.checks["examples"] == 20
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "an export in fp32" in card
    assert "| margin | 0.250 |" in card
    assert "| examples | 20 |" in card
    assert Engine(tmp_path / "out").compacting.policy == policy
    assert Engine(tmp_path / "model").compacting.policy == policy
    theirs = Engine(tmp_path / "model").predict("a film")
    ours = Engine(tmp_path / "out").predict("a film")
    assert (ours.label, ours.exit_layer, ours.cost) == (theirs.label, theirs.exit_layer, theirs.cost)
