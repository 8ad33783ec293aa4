"""Join the segments' graphs into one, for every larger graph of an export."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp._core.errors import MissingExtraError
from offramp.engine.manifest import Manifest

SMALL = 64  # equal constants of up to this many numbers are stored once; larger ones are weights


def write_cut(folder: Path, manifest: Manifest, exit: int, target: Path) -> None:
    """Write the model cut behind one exit, or that member of a cascade, as one graph with only this head.

    Args:
        folder: the segments' graphs.
        manifest: of the folder.
        exit: the exit, 0-based.
        target: the file to write; its output is `logits` (batch, classes).
    """
    models = load_segments(folder, manifest)[: exit + 1]
    from onnx import helper

    names = {value: value for value in manifest.inputs}
    nodes: list[Any] = []
    weights: list[Any] = []
    seen: dict[Any, list[str]] = {}
    for k, model in enumerate(models):
        more, initializers, own, seen = add_segment(model.graph, k, names, seen)
        nodes, weights = [*nodes, *more], [*weights, *initializers]
        names |= {value.name: own[value.name] for value in model.graph.output}
    nodes = used([*nodes, helper.make_node("Identity", [names["logits"]], ["logits"])], {"logits"})
    read = {name for node in nodes for name in node.input}
    inputs = [value for value in model_inputs(models, manifest) if value.name in read]
    outputs = [value for value in models[-1].graph.output if value.name == "logits"]
    weights = [tensor for tensor in weights if tensor.name in read]
    save_graph(helper.make_graph(nodes, "cut", inputs, outputs, weights), models, target)


def load_segments(folder: Path, manifest: Manifest) -> list[Any]:
    """The graphs of an exported folder, in order.

    Raises:
        MissingExtraError: without `onnx`.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    return [onnx.load(str(folder / segment.file)) for segment in manifest.segments]


def save_graph(graph: Any, models: Sequence[Any], target: Path) -> None:
    """Write a graph that joins others, under the latest of their operator sets."""
    import onnx
    from onnx import helper

    imports: dict[str, int] = {}
    for entry in (entry for model in models for entry in model.opset_import):
        imports[entry.domain] = max(entry.version, imports.get(entry.domain, 0))
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        ir_version=max(model.ir_version for model in models),
    )
    onnx.save(made, str(target))


def model_inputs(models: Sequence[Any], manifest: Manifest) -> list[Any]:
    """The model's inputs as the first graph declares them."""
    declared = {value.name: value for value in models[0].graph.input}
    return [declared[name] for name in manifest.inputs]


def add_segment(
    graph: Any, k: int, names: Mapping[str, str], seen: Mapping[Any, list[str]]
) -> tuple[list[Any], list[Any], dict[str, str], dict[Any, list[str]]]:
    """A segment's nodes and weights under unique names, without those that earlier segments have.

    Args:
        graph: of the segment.
        k: the segment, 0-based.
        names: names of its inputs in the joined graph.
        seen: results of the earlier segments, as returned by this function.

    Returns:
        The nodes; the weights; the names, including those replaced by earlier ones; and all results so far, as names
        of outputs by operator and inputs.
    """
    prefix, seen = f"segment.{k}.", dict(seen)
    made = [*(i.name for i in graph.initializer), *(o for node in graph.node for o in node.output)]
    names = {
        **names,
        **{value.name: names[value.name] for value in graph.input},
        **{n: prefix + n for n in made},
    }
    initializers, nodes = [], []
    for tensor in graph.initializer:
        own = names[tensor.name]
        key = named(tensor, "").SerializeToString() if math.prod(tensor.dims) <= SMALL else own
        names[tensor.name] = seen.setdefault(key, [own])[0]
        if names[tensor.name] == own:
            initializers.append(named(tensor, own))
    for node in graph.node:
        new = renamed(node, names, prefix)
        key = (new.domain, new.op_type, *new.input, *sorted(a.SerializeToString() for a in new.attribute))
        earlier = seen.setdefault(key, list(new.output))
        if earlier == list(new.output):
            nodes.append(new)
        names |= dict(zip(node.output, earlier, strict=True))
    return nodes, initializers, names, seen


def renamed(node: Any, names: Mapping[str, str], prefix: str) -> Any:
    """A copy of a node with its tensors renamed; an empty name means a missing input."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = prefix + (node.name or node.output[0])
    for field in (copy.input, copy.output):
        renamed = [names[name] if name else "" for name in field]
        del field[:]
        field.extend(renamed)
    return copy


def named(tensor: Any, name: str) -> Any:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def readers_by_tensor(nodes: Iterable[Any]) -> dict[str, list[Any]]:
    """The nodes that read a tensor, by its name."""
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def used(nodes: Sequence[Any], outputs: Collection[str]) -> list[Any]:
    """The nodes that an output depends on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= _inputs(node)
    return kept[::-1]


def _inputs(node: Any) -> set[str]:
    """Names of the tensors that a node and the graphs inside it read."""
    inside = [node for attribute in node.attribute if attribute.HasField("g") for node in attribute.g.node]
    return set(node.input).union(*(_inputs(node) for node in inside))
