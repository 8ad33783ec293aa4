"""All segments in one graph with the exit decision inside: the form that answers one text at a time fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offramp._core.errors import ConfigError, MissingExtraError
from offramp.engine.manifest import Manifest

Nodes = list[Any]
SCORE = "score"
OUTPUTS = ("logits", "exit", "probability", SCORE)
SMALL = 64  # constants up to so many numbers are compared; larger ones are weights, each its own


def _confidence(make: Any, probabilities: str) -> Nodes:
    return [make("ReduceMax", [probabilities], [SCORE], keepdims=0)]


def _margin(make: Any, probabilities: str) -> Nodes:
    return [
        make("TopK", [probabilities, "two"], ["top", "places"], axis=-1),
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


# Rules that need one exit's probabilities and no memory; whether they leave below the threshold.
RULES: dict[str, tuple[Callable[[Any, str], Nodes], bool]] = {
    "confidence": (_confidence, False),
    "margin": (_margin, False),
    "entropy": (_entropy, True),
}


def write_single(folder: Path, manifest: Manifest, rule: str, target: Path) -> None:
    """Join the graphs of an exported folder into one that takes one text and stops at the exit it leaves at.

    Its inputs are those of the model, with `threshold` () and `temperatures` (exits,) in float64; its outputs are the
    `logits` (1, classes) of the exit taken, its index, `exit` (), and in float64 the calibrated `probability` () of its
    answer and the rule's `score` (). What several segments compute alike, such as masks, is computed once.

    Args:
        folder: the segments' graphs.
        manifest: of the folder.
        rule: name of the exit rule that decides: confidence, margin or entropy.
        target: the file to write.

    Raises:
        ConfigError: for another rule.
        MissingExtraError: without `onnx`.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    if rule not in RULES:
        raise ConfigError(
            f"a single graph decides by {', '.join(RULES)}, got {rule!r}: export segments, which know every rule"
        )
    import numpy as np

    models = [onnx.load(str(folder / part.file)) for part in manifest.segments]
    names = {value: value for value in manifest.inputs}
    nodes, initializers = _level(0, models, names, rule, {})
    constants = [
        numpy_helper.from_array(np.array([2], dtype=np.int64), "two"),
        numpy_helper.from_array(np.array(np.finfo(np.float64).tiny), "tiny"),
    ]
    inputs = [*(_input(models, name) for name in manifest.inputs)]
    inputs += [
        helper.make_tensor_value_info("threshold", onnx.TensorProto.DOUBLE, []),
        helper.make_tensor_value_info("temperatures", onnx.TensorProto.DOUBLE, [len(models)]),
    ]
    graph = helper.make_graph(nodes, "single", inputs, _outputs(""), [*constants, *initializers])
    imports = {entry.domain: entry.version for model in models for entry in model.opset_import}
    onnx.save(
        helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
            ir_version=max(model.ir_version for model in models),
        ),
        str(target),
    )


def _level(
    k: int, models: list[Any], names: Mapping[str, str], rule: str, seen: Mapping[Any, list[str]]
) -> tuple[Nodes, list[Any]]:
    """Nodes and weights of segment `k` and all behind it; what comes of them is called `level.K.` and an output.

    Args:
        k: the segment, 0-based.
        models: the graphs of all segments.
        names: what the state's tensors are called in the levels around this one.
        rule: the exit rule.
        seen: what those levels have computed; see `_shared`.
    """
    from onnx import helper

    graph = models[k].graph
    known = {**names, **{value.name: names[value.name] for value in graph.input}}
    own = {
        name: f"segment.{k}.{name}"
        for name in [*(i.name for i in graph.initializer), *(o for node in graph.node for o in node.output)]
    }
    nodes, initializers, own, seen = _shared(graph, {**known, **own}, f"segment.{k}.", seen)
    outputs = {value.name: own[value.name] for value in graph.output}
    prefix = "" if k == 0 else f"level.{k}."
    nodes += _decision(k, outputs["logits"], rule)
    if k == len(models) - 1:
        return _read([*nodes, *_stop(k, outputs["logits"], prefix)], prefix), initializers
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
    return _read([*nodes, chosen], prefix), initializers


def _shared(
    graph: Any, names: Mapping[str, str], prefix: str, seen: Mapping[Any, list[str]]
) -> tuple[Nodes, list[Any], dict[str, str], dict[Any, list[str]]]:
    """A segment's nodes and weights under their new names, without those that the levels around it have already.

    Returns:
        The nodes, the weights, the names with those that stand for earlier ones, and what has been computed by now:
        the outputs by what they are computed from.
    """
    names, seen = dict(names), dict(seen)
    initializers, nodes = [], []
    for tensor in graph.initializer:
        own = names[tensor.name]
        key = _named(tensor, "").SerializeToString() if math.prod(tensor.dims) <= SMALL else own
        names[tensor.name] = seen.setdefault(key, [own])[0]
        if names[tensor.name] == own:
            initializers.append(_named(tensor, own))
    for node in graph.node:
        new = _renamed(node, names, prefix)
        key = (new.domain, new.op_type, *new.input, *sorted(a.SerializeToString() for a in new.attribute))
        found = seen.setdefault(key, list(new.output))
        if found == list(new.output):
            nodes.append(new)
        names |= dict(zip(node.output, found, strict=True))
    return nodes, initializers, names, seen


def _decision(k: int, logits: str, rule: str) -> Nodes:
    """Score and probability of exit `k`, and whether the one text leaves there, as `leave.K`, all () and in float64."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    write, below = RULES[rule]
    place = helper.make_node(
        "Constant", [], ["place"], value=numpy_helper.from_array(np.array(k, dtype=np.int64))
    )
    nodes = [
        place,
        helper.make_node("Gather", ["temperatures", "place"], ["temperature"]),
        helper.make_node("Cast", [logits], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Div", ["wide", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=-1),
        helper.make_node("ReduceMax", ["probabilities"], ["probability"], keepdims=0),
        *write(helper.make_node, "probabilities"),
        helper.make_node("Less" if below else "GreaterOrEqual", [SCORE, "threshold"], ["leave"]),
    ]
    given = {
        logits: logits,
        "temperatures": "temperatures",
        "threshold": "threshold",
        "two": "two",
        "tiny": "tiny",
    }
    local = {name: f"{name}.{k}" for node in nodes for name in node.output}
    return [_renamed(node, {**given, **local}, f"decide.{k}.") for node in nodes]


def _stop(k: int, logits: str, prefix: str) -> Nodes:
    """The answer of exit `k` as the graph's."""
    import numpy as np
    from onnx import helper, numpy_helper

    exit = numpy_helper.from_array(np.array(k, dtype=np.int64))
    return [
        helper.make_node("Constant", [], [f"{prefix}exit"], value=exit),
        *(
            helper.make_node("Identity", [name], [prefix + output])
            for name, output in (
                (logits, "logits"),
                (f"probability.{k}", "probability"),
                (f"{SCORE}.{k}", SCORE),
            )
        ),
    ]


def _read(nodes: Nodes, prefix: str) -> Nodes:
    """The nodes whose results are read, in the end by an output of this level."""
    wanted, kept = {prefix + name for name in OUTPUTS}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= _inputs(node)
    return kept[::-1]


def _inputs(node: Any) -> set[str]:
    """What a node reads, the graphs inside it too."""
    inside = [one for attribute in node.attribute if attribute.HasField("g") for one in attribute.g.node]
    return set(node.input).union(*(_inputs(one) for one in inside))


def _outputs(prefix: str) -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_tensor_value_info(f"{prefix}logits", TensorProto.FLOAT, ["batch", "classes"]),
        helper.make_tensor_value_info(f"{prefix}exit", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"{prefix}probability", TensorProto.DOUBLE, []),
        helper.make_tensor_value_info(f"{prefix}{SCORE}", TensorProto.DOUBLE, []),
    ]


def _input(models: list[Any], name: str) -> Any:
    """A model input as its graph declares it."""
    return next(value for value in models[0].graph.input if value.name == name)


def _renamed(node: Any, names: Mapping[str, str], prefix: str) -> Any:
    """A copy of a node with its tensors under other names; the empty name stands for an input left out."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = prefix + (node.name or node.output[0])
    for field in (copy.input, copy.output):
        renamed = [names[name] if name else "" for name in field]
        del field[:]
        field.extend(renamed)
    return copy


def _named(tensor: Any, name: str) -> Any:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
