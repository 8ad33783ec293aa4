"""All segments and the exit decision in one graph: the fastest form for single texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError
from offramp.engine.manifest import Manifest
from offramp.exporting.joining import add_segment, load_segments, model_inputs, renamed, save_graph, used

Nodes = list[Any]
SCORE = "score"
OUTPUTS = ("logits", "exit", "probability", SCORE)


def _confidence(make: Any, probabilities: str) -> Nodes:
    return [make("ReduceMax", [probabilities], [SCORE], keepdims=0)]


def _margin(make: Any, probabilities: str) -> Nodes:
    return [
        make("TopK", [probabilities, "two"], ["top", "classes"], axis=-1),
        make("Split", ["top"], ["first", "second"], axis=-1, num_outputs=2),
        make("Sub", ["first", "second"], ["gap"]),
        make("ReduceMax", ["gap"], [SCORE], keepdims=0),
    ]


def _entropy(make: Any, probabilities: str) -> Nodes:
    return [
        make("Max", [probabilities, "tiny"], ["safe"]),  # 0 · log 0 = 0
        make("Log", ["safe"], ["logs"]),
        make("Mul", [probabilities, "logs"], ["terms"]),
        make("ReduceSum", ["terms"], ["sum"], keepdims=0),
        make("Neg", ["sum"], [SCORE]),
    ]


# Rules that need only the probabilities of one exit, and whether they leave below the threshold.
RULES: dict[str, tuple[Callable[[Any, str], Nodes], bool]] = {
    "confidence": (_confidence, False),
    "margin": (_margin, False),
    "entropy": (_entropy, True),
}


def write_fused(folder: Path, manifest: Manifest, rule: str, target: Path) -> None:
    """Join the graphs of an exported folder into one graph that takes one text and stops at its exit.

    Its inputs are those of the model, with `threshold` and `temperatures`, both (exits,) and in float64. Its outputs
    are the `logits` (1, classes) of the exit taken, its index, `exit` (), and in float64 the calibrated `probability`
    () of its answer and the rule's `score` (). Results that several segments share, such as masks, are computed once.

    Args:
        folder: the segments' graphs.
        manifest: of the folder.
        rule: name of the exit rule: confidence, margin or entropy.
        target: the file to write.

    Raises:
        ConfigError: another rule.
        MissingExtraError: without `onnx`.
    """
    if rule not in RULES:
        raise ConfigError(
            f"a fused graph needs {', '.join(RULES)}, got {rule!r}: export segments, which have every rule"
        )
    models = load_segments(folder, manifest)
    from onnx import TensorProto, helper, numpy_helper

    names = {value: value for value in manifest.inputs}
    nodes, initializers = _level(0, models, names, rule, {})
    constants = [
        numpy_helper.from_array(np.array([2], dtype=np.int64), "two"),
        numpy_helper.from_array(np.array(np.finfo(np.float64).tiny), "tiny"),
    ]
    inputs = [
        *model_inputs(models, manifest),
        helper.make_tensor_value_info("threshold", TensorProto.DOUBLE, [len(models)]),
        helper.make_tensor_value_info("temperatures", TensorProto.DOUBLE, [len(models)]),
    ]
    graph = helper.make_graph(nodes, "single", inputs, _outputs(""), [*constants, *initializers])
    save_graph(graph, models, target)


def _level(
    k: int, models: list[Any], names: Mapping[str, str], rule: str, seen: Mapping[Any, list[str]]
) -> tuple[Nodes, list[Any]]:
    """Nodes and weights of segment `k` and all later ones; their results are called `level.K.` and an output.

    Args:
        k: the segment, 0-based.
        models: the graphs of all segments.
        names: names of the state's tensors in the levels around this one.
        rule: the exit rule.
        seen: results of those levels; see `add_segment`.
    """
    from onnx import helper

    graph = models[k].graph
    nodes, initializers, own, seen = add_segment(graph, k, names, seen)
    outputs = {value.name: own[value.name] for value in graph.output}
    prefix = "" if k == 0 else f"level.{k}."
    wanted = {prefix + name for name in OUTPUTS}
    nodes += _decision(k, outputs["logits"], rule)
    if k == len(models) - 1:
        return used([*nodes, *_stop(k, outputs["logits"], prefix)], wanted), initializers
    deeper, weights = _level(k + 1, models, {**names, **outputs}, rule, seen)
    stop = f"stop.{k}."
    then = helper.make_graph(_stop(k, outputs["logits"], stop), f"stop.{k}", [], _outputs(stop))
    go_on = helper.make_graph(deeper, f"go.{k}", [], _outputs(f"level.{k + 1}."), weights)
    chosen = helper.make_node(
        "If",
        [f"leave.{k}"],
        [prefix + name for name in OUTPUTS],
        then_branch=then,
        else_branch=go_on,
    )
    return used([*nodes, chosen], wanted), initializers


def _decision(k: int, logits: str, rule: str) -> Nodes:
    """Score and probability of exit `k`, and whether the one text leaves there, as `leave.K`, all () and in float64."""
    from onnx import TensorProto, helper, numpy_helper

    write, below = RULES[rule]
    index = numpy_helper.from_array(np.array(k, dtype=np.int64))
    nodes = [
        helper.make_node("Constant", [], ["index"], value=index),
        helper.make_node("Gather", ["temperatures", "index"], ["temperature"]),
        helper.make_node("Gather", ["threshold", "index"], ["limit"]),
        helper.make_node("Cast", [logits], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Div", ["wide", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=-1),
        helper.make_node("ReduceMax", ["probabilities"], ["probability"], keepdims=0),
        *write(helper.make_node, "probabilities"),
        helper.make_node("Less" if below else "GreaterOrEqual", [SCORE, "limit"], ["leave"]),
    ]
    given = {name: name for name in (logits, "temperatures", "threshold", "two", "tiny")}
    local = {name: f"{name}.{k}" for node in nodes for name in node.output}
    return [renamed(node, {**given, **local}, f"decide.{k}.") for node in nodes]


def _stop(k: int, logits: str, prefix: str) -> Nodes:
    """Return the answer of exit `k` from the graph."""
    from onnx import helper, numpy_helper

    exit = numpy_helper.from_array(np.array(k, dtype=np.int64))
    return [
        helper.make_node("Constant", [], [f"{prefix}exit"], value=exit),
        helper.make_node("Identity", [logits], [f"{prefix}logits"]),
        helper.make_node("Identity", [f"probability.{k}"], [f"{prefix}probability"]),
        helper.make_node("Identity", [f"{SCORE}.{k}"], [prefix + SCORE]),
    ]


def _outputs(prefix: str) -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_tensor_value_info(f"{prefix}logits", TensorProto.FLOAT, ["batch", "classes"]),
        helper.make_tensor_value_info(f"{prefix}exit", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"{prefix}probability", TensorProto.DOUBLE, []),
        helper.make_tensor_value_info(f"{prefix}{SCORE}", TensorProto.DOUBLE, []),
    ]
