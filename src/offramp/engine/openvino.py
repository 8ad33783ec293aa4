"""An exported folder as the engine's segments on OpenVINO: faster than ONNX Runtime on large batches of int8."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, MissingExtraError, ModelError
from offramp.engine.manifest import AGAIN
from offramp.engine.onnx import OnnxSegments, OnnxState, thread_count


class OpenVinoSegments(OnnxSegments):
    """Drives the graphs of an exported folder in OpenVINO, on the CPU.

    Computes in float32 where the graph is not int8: OpenVINO's own choice on newer processors, bfloat16, lets a batch
    change its rows' answers. Several threads may share one object.

    Args:
        folder: what `offramp export` wrote.
        threads: CPU threads; by default as many as the process may use.
        verify: compare every file with its checksum first.
        device: `cpu` alone.

    Raises:
        ModelError: no exported folder, files missing or altered, or graphs that this OpenVINO cannot run.
        MissingExtraError: without `openvino`.
        ConfigError: `threads` below 1, or another device.
    """

    def _open(self, threads: int | None, device: str) -> None:
        if device != "cpu":
            raise ConfigError(
                f"backend 'openvino' runs on the cpu, got device {device!r}: use backend 'onnx'"
            )
        paths = [self.folder / part.file for part in self.manifest.segments]
        self.compiled = [compile_graph(path, threads) for path in paths]
        self._requests = threading.local()  # a request runs one call at a time, so each thread has its own

    def _compute(self, k: int, tensors: OnnxState) -> Sequence[NDArray[Any]]:
        requests = self._requests.__dict__.setdefault("made", {})
        if k not in requests:
            requests[k] = self.compiled[k].create_infer_request()
        found = requests[k].infer(tensors, share_inputs=True, share_outputs=False)
        return [np.asarray(found[name]) for name in self.manifest.segments[k].outputs]


def compile_graph(path: Path, threads: int | None, precision: str = "f32") -> Any:
    """A graph, ready to run in OpenVINO.

    Args:
        path: an ONNX file, or OpenVINO's own format.
        threads: CPU threads; by default as many as the process may use.
        precision: what is computed in where the graph is not int8; "" leaves the choice to OpenVINO.

    Raises:
        ModelError: a graph that this OpenVINO cannot run.
        MissingExtraError: without `openvino`.
        ConfigError: `threads` below 1.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    options = {"INFERENCE_NUM_THREADS": thread_count(threads), "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        options["INFERENCE_PRECISION_HINT"] = precision
    try:
        return openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:  # the binding raises bare RuntimeError and its own classes
        raise ModelError(
            f"openvino {openvino.__version__} cannot run {path.name}: {' '.join(str(error).split())[:300]}; "
            f"use backend 'onnx', or {AGAIN}"
        ) from error
