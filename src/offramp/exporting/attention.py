"""Attention as one operator of ONNX: its kernel in ONNX Runtime takes two thirds of the time of the single steps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from offramp._core.errors import MissingExtraError

OPSET, IR_VERSION = 23, 11  # the first that have the operator


def fold_attention(model: Any) -> Any:
    """The model with heads split, compared, scaled, masked, normalised, weighted and joined in one step.

    Attention of another form, such as one with keys for relative positions, stays as it is.

    Args:
        model: `onnx.ModelProto`; its operator set is raised where something was folded.

    Raises:
        MissingExtraError: without `onnxscript`.
    """
    try:
        from onnx import shape_inference
        from onnxscript import rewriter
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export") from error
    folded = rewriter.rewrite(shape_inference.infer_shapes(model), pattern_rewrite_rules=[_rule()])
    if any(node.op_type == "Attention" for node in folded.graph.node):
        for entry in folded.opset_import:
            entry.version = entry.version if entry.domain else max(entry.version, OPSET)
        folded.ir_version = max(folded.ir_version, IR_VERSION)
    return folded


@lru_cache(maxsize=1)
def _rule() -> Any:
    from onnxscript.rewriter import pattern

    class OneStep(pattern.RewriteRuleClassBase):
        """Softmax(queries · keys / √width + bias + mask) · values, heads split before and joined after."""

        def pattern(
            self,
            op: Any,
            queries: Any,
            keys: Any,
            values: Any,
            split: Any,
            join: Any,
            scale: Any,
            bias: Any,
            mask: Any,
        ) -> Any:
            heads = op.Transpose(op.Reshape(queries, split), perm=[0, 2, 1, 3])
            turned = op.Transpose(op.Reshape(keys, split), perm=[0, 2, 3, 1])
            product = op.MatMul(heads, turned)
            scaled = pattern.OrValue(
                [op.Mul(product, scale), op.Div(product, scale)], tag_var="scaling", tag_values=["Mul", "Div"]
            )
            biased = pattern.OrValue(
                [op.Add(scaled, bias), scaled], tag_var="biased", tag_values=[True, False]
            )
            weights = op.Softmax(op.Add(biased, mask), axis=-1)
            weighted = op.MatMul(weights, op.Transpose(op.Reshape(values, split), perm=[0, 2, 1, 3]))
            return op.Reshape(op.Transpose(weighted, perm=[0, 2, 1, 3]), join)

        def check(self, op: Any, *args: Any, **bound: Any) -> Any:
            queries, scale, split, mask = (bound[name] for name in ("queries", "scale", "split", "mask"))
            match = pattern.MatchResult()
            if _number(scale) is None or _heads(queries, split) is None or len(mask.shape or ()) != 4:
                match.fail("scale, heads or the shape of the mask are not known")
            return match

        def rewrite(
            self,
            op: Any,
            queries: Any,
            keys: Any,
            values: Any,
            split: Any,
            scale: Any,
            mask: Any,
            scaling: str,
            biased: bool,
            bias: Any = None,
            **rest: Any,
        ) -> Any:
            number, heads = _number(scale), _heads(queries, split)
            assert number is not None, "see check"
            added = op.Add(bias, mask) if biased else mask
            if mask.shape[2] == 1 and not biased:  # the kernel wants a row of it for each query
                unit = op.Constant(value_ints=[1])
                added = op.Expand(
                    mask, op.Concat(unit, unit, op.Shape(queries, start=1, end=2), unit, axis=0)
                )
            return op.Attention(
                queries,
                keys,
                values,
                added,
                scale=number if scaling == "Mul" else 1 / number,
                q_num_heads=heads,
                kv_num_heads=heads,
            )

    return OneStep.rule()


def _number(value: Any) -> float | None:
    """A constant with one number."""
    constant = value.const_value
    return None if constant is None or constant.size != 1 else float(constant.numpy().item())


def _heads(queries: Any, split: Any) -> int | None:
    """How many heads a reshape to (batch, length, heads, width) makes."""
    width = None if queries.shape is None else queries.shape[-1]
    made = split.producer()
    if made is None or made.op_type != "Concat" or len(made.inputs) != 4 or not isinstance(width, int):
        return None
    each = made.inputs[3].const_value
    return None if each is None or width % each.numpy().item() else width // each.numpy().item()
