"""OpenVINO as a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offramp._core.errors import MissingExtraError, ModelError
from offramp.engine.onnx import thread_count


def compile_graph(path: Path, threads: int | None) -> Any:
    """A graph, ready to run in OpenVINO.

    Args:
        path: an ONNX file, or OpenVINO's own format.
        threads: CPU threads; by default as many as the process may use.

    Raises:
        ModelError: a graph that this OpenVINO cannot run.
        MissingExtraError: without `openvino`.
        ConfigError: `threads` below 1.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "bench") from error
    options = {"INFERENCE_NUM_THREADS": thread_count(threads), "PERFORMANCE_HINT": "LATENCY"}
    try:
        return openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:  # the binding raises bare RuntimeError and its own classes
        raise ModelError(
            f"openvino {openvino.__version__} cannot run {path.name}: {' '.join(str(error).split())[:300]}"
        ) from error
