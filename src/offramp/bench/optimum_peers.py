"""Full depth as optimum and sentence-transformers export it, each in a process of another environment.

Both need older versions of transformers than this project, so a model is handed over as a plain checkpoint.
"""

from __future__ import annotations

import json
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from offramp._core.errors import ConfigError, OfframpError
from offramp._core.records import write_text
from offramp.bench import optimum_worker
from offramp.bench.optimum_worker import CALIBRATION, CHECKPOINT, HEAD

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

FOLDER = "optimum"
ONNX, OPENVINO = "optimum-onnx-full", "optimum-openvino-full"
SBERT_ONNX, SBERT_OPENVINO = "sbert-onnx-full", "sbert-openvino-full"
_ONNX = {"optimum-onnx": "0.1", "onnxruntime": "1.18"}
_OPENVINO = {"optimum-intel": "1.27", "openvino": "2025.1", "nncf": "2.19", "datasets": "2.14"}
_SBERT = {"sentence-transformers": "5.0"}
# Packages of each peer, with their least versions.
PACKAGES: dict[str, dict[str, str]] = {
    ONNX: _ONNX,
    OPENVINO: _OPENVINO,
    SBERT_ONNX: {**_SBERT, **_ONNX},
    SBERT_OPENVINO: {**_SBERT, **_OPENVINO},
}
INSTALL = (
    "'optimum-onnx[onnxruntime]==0.1.0' 'optimum-intel[openvino]==1.27.0' sentence-transformers==5.7.0 "
    "transformers==4.57.6 datasets==5.0.1"
)
MAKE = (
    f"make an environment with `python -m venv ENV && ENV/bin/pip install {INSTALL}`, and give ENV/bin/python"
)
PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version

def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None

print(json.dumps({name: installed(name) for name in sys.argv[1:]}))
"""
PROBE_SECONDS = 60.0


class PeerError(OfframpError):
    """A peer of another environment cannot be made, or has ended; the others are measured without it."""

    def __init__(self, peer: str, problem: str) -> None:
        super().__init__(peer, problem)
        self.peer = peer

    def __str__(self) -> str:
        return "{} is left out: {}".format(*self.args)


@dataclass(frozen=True)
class OptimumEnvironment:
    """Another Python environment, and the peers that it can run.

    Attributes:
        python: its interpreter.
        versions: of its packages, None where one is missing.
        lacking: peers that it cannot run, with the reason.
    """

    python: Path
    versions: Mapping[str, str | None]
    lacking: Mapping[str, str]

    @property
    def peers(self) -> list[str]:
        """Names of the peers that it can run."""
        return [name for name in PACKAGES if name not in self.lacking]

    @classmethod
    def of(cls, python: Path, versions: Mapping[str, str | None]) -> OptimumEnvironment:
        """What an interpreter can run with packages of these versions; see `installed_versions`.

        Raises:
            ConfigError: none of the peers.
        """
        lacking: dict[str, str] = {}
        for peer, packages in PACKAGES.items():
            for package, least in packages.items():
                version = versions[package]
                if version is None or Version(version) < Version(least):
                    state = f"has {package} {version}, older than {least}" if version else f"has no {package}"
                    lacking[peer] = f"{python} {state}: {python} -m pip install --upgrade {package}"
                    break
        if len(lacking) == len(PACKAGES):
            raise ConfigError(f"{python} lacks packages of every peer that it would run: {MAKE}")
        return cls(python, versions, lacking)

    def fitting(self, model: SegmentedModel) -> OptimumEnvironment:
        """The same environment without the peers that cannot run a model.

        Raises:
            ConfigError: none of them can.
        """
        if (last := last_member(model)).driver.final_norm is not None:
            raise ConfigError(
                f"{type(last.backbone).__name__} leaves its last norm to the heads, which a sentence encoder cannot: "
                "leave --optimum out for this model"
            )
        reason = "sentence-transformers embeds single texts, and these are pairs"
        pairs = dict.fromkeys((SBERT_ONNX, SBERT_OPENVINO) if model.pair else (), reason)
        return replace(self, lacking={**self.lacking, **pairs})


def installed_versions(python: Path) -> dict[str, str | None]:
    """The versions of the packages that the peers use, None where one is missing.

    Args:
        python: the interpreter of their environment.

    Raises:
        ConfigError: it cannot be run.
    """
    names = {name for packages in PACKAGES.values() for name in packages}
    command = [str(python), "-I", "-c", PROBE, *sorted(names), "torch", "transformers"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PROBE_SECONDS)
        return dict(json.loads(ended.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"expected the Python of an environment with optimum, got {python}: {MAKE}"
        ) from error


def last_member(model: Any) -> Any:
    """What answers at the last exit: the model, or the last one of a cascade."""
    return model.member(len(model.exit_layers) - 1) if "members" in dict(model.named_children()) else model


def write_checkpoint(model: SegmentedModel, folder: Path, texts: Sequence[tuple[str, ...]]) -> None:
    """Write the whole model as encoder, tokenizer and the last head, and texts for int8 scales."""
    last = last_member(model)
    head = last.heads[-1]
    folder.mkdir(parents=True, exist_ok=True)
    last.backbone.save_pretrained(folder / CHECKPOINT)
    model.tokenizer.save_pretrained(folder / CHECKPOINT)
    layers = {"": head.classifier} | ({} if head.pooler is None else {"dense_": head.pooler.dense})
    arrays = {
        f"{prefix}{name}": value.detach().float().numpy()
        for prefix, layer in layers.items()
        for name, value in layer.named_parameters()
    }
    with open(folder / HEAD, "wb") as file:
        np.savez(file, pooling=head.pooling, max_length=model.max_length, **arrays)
    write_text(folder / CALIBRATION, json.dumps([list(text) for text in texts]))


class RemotePeer:
    """A peer in a process of another interpreter, which exports it first where that was not done.

    Args:
        python: the interpreter.
        name: of the peer.
        folder: that `write_checkpoint` filled.
        threads: CPU threads.

    Attributes:
        overhead: seconds of all calls so far that were spent between the processes and not on answers.
        peak_mib: peak memory of the other process after the last call; None where its system does not report it.

    Raises:
        PeerError: the export failed, or the process ended.
    """

    def __init__(self, python: Path, name: str, folder: Path, threads: int) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self.overhead = 0.0
        self.peak_mib: float | None = None
        self.command = [str(python), "-I", optimum_worker.__file__]
        self.arguments = [name, str(folder), str(threads)]
        if not (done := folder / name / "exported").is_file():
            with self.log.open("wb") as log:
                export = subprocess.run([*self.command, "export", *self.arguments], stdout=log, stderr=log)
            if export.returncode:
                raise self._ended()
            done.touch()
        self.process = self._start()
        weakref.finalize(self, _stop, self.process)
        self._read()

    def _start(self) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        with self.log.open("wb") as log:
            return subprocess.Popen([*self.command, "answer", *self.arguments], stderr=log, **pipes)

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> NDArray[Any]:
        """Classes of texts or pairs `(examples,)`."""
        before = perf_counter()
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(texts) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        reply = self._read()
        self.peak_mib = reply["peak_mib"]
        self.overhead += perf_counter() - before - reply["seconds"]
        return np.array(reply["answers"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        return dict(json.loads(line))

    def _ended(self) -> PeerError:
        """What the last line of the log says of a process that has ended."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return PeerError(
            self.name, f"it ended with {lines[-1] if lines else 'no message'!r} (see {self.log})"
        )


def _stop(process: subprocess.Popen[str]) -> None:
    """Close its input, at which it ends."""
    with process:
        assert process.stdin is not None
        with suppress(OSError):  # it has ended already
            process.stdin.close()
