"""The manifest of an exported folder: files, checksums, and everything else that the engine needs."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from offramp._core.damaged_files import file_problem
from offramp._core.environment import usable_cores
from offramp._core.errors import ModelError
from offramp._core.paths import UserPath, user_path
from offramp._core.records import write_text
from offramp._core.trace import Kind

FORMAT = "offramp-onnx"
SCHEMA = 2
FILE_NAME = "manifest.json"
AGAIN = "export it again with 'offramp export'"
LISTS = dict.fromkeys(("labels", "exit_layers", "inputs", "shared"), list)
OBJECTS = dict.fromkeys(("pad_values", "costs", "versions", "checks", "times", "files"), dict)
# Keys of the file that differ from the attributes.
KEYS = {"fused_graph": "single", "fused_rule": "single_rule"}
# Keys that earlier exports lack.
DEFAULTS: dict[str, Any] = {
    "times": {},
    "fused_graph": "",
    "fused_rule": "",
    "linear": "",
    "reads_padding": False,
    "pair": None,
}


@dataclass(frozen=True)
class SegmentFile:
    """One segment with its head as a graph, and the names of its inputs and outputs."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`."""

    precision: str  # fp32 or int8
    kind: Kind
    labels: tuple[str, ...]  # class names; empty for regression
    exit_layers: tuple[
        int, ...
    ]  # layers of the exits, counted from 1; 0 for the stage before the first layer
    gates: bool  # whether the exits give gate probabilities
    max_length: int  # longest input in tokens
    inputs: tuple[str, ...]  # the encoder's outputs for a text, in the order of the model's input names
    pad_values: dict[str, int]  # by input
    costs: dict[str, Any]  # coefficients of the FLOPs by length, see `offramp.costs`
    segments: tuple[SegmentFile, ...]  # the graphs in order
    shared: tuple[str, ...]  # tensors between segments that have no batch dimension
    architecture: str  # the encoder's `model_type`
    opset: int  # ONNX operator set of the graphs
    policy: str = ""  # file of the policy; "" for none
    tokenizer: str = "tokenizer.json"
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries at export
    checks: dict[str, Any] = field(default_factory=dict)  # comparison of the export with its model
    times: dict[str, Any] = field(default_factory=dict)  # `SegmentTimes` of the export; {} if not measured
    fused_graph: str = ""  # file of the graph with all segments and the decision in it; "" for none
    fused_rule: str = ""  # name of the exit rule in the fused graph
    linear: str = ""  # file of layer 0; "" for none
    reads_padding: bool = False  # whether the texts of a batch must have one length
    pair: bool | None = None  # whether the model was trained on pairs of texts; None if unknown
    files: dict[str, str] = field(default_factory=dict)  # sha256 by file name

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, the last file of an export. A folder without it is not read."""
        values = {KEYS.get(name, name): value for name, value in asdict(self).items()}
        content = {"format": FORMAT, "schema": SCHEMA, **values}
        write_text(folder / FILE_NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: UserPath) -> Manifest:
        """Read the manifest of an exported folder.

        Raises:
            ModelError: no manifest, a broken one, or one of another format or schema.
        """
        path = user_path(folder) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelError(
                f"{folder} is not an exported folder, it has no {FILE_NAME}: make one with 'offramp export MODEL'"
            ) from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} {file_problem(path, error)}: {AGAIN}") from error
        if not isinstance(content, dict):
            content = {}
        form, schema = content.get("format"), content.get("schema")
        if (form, schema) != (FORMAT, SCHEMA):
            raise ModelError(
                f"{path} has format {form!r}, schema {schema!r}; this offramp reads {FORMAT!r}, {SCHEMA}: {AGAIN}"
            )
        return cls._of(content, path)

    @classmethod
    def _of(cls, content: dict[str, Any], path: Path) -> Manifest:
        """The manifest with lists made tuples, or a `ModelError` that names what is missing."""
        attributes = {key: name for name, key in KEYS.items()}
        content = DEFAULTS | {attributes.get(key, key): value for key, value in content.items()}
        names = {f.name for f in fields(cls)}
        if missing := sorted(names - set(content)):
            raise ModelError(f"{path} lacks {', '.join(missing)}: {AGAIN}")
        for name, kind in (LISTS | OBJECTS).items():
            if not isinstance(content[name], kind):
                raise ModelError(
                    f"{path} has {content[name]!r:.40} as {name}, expected the type {kind.__name__}: {AGAIN}"
                )
        content |= {name: tuple(content[name]) for name in LISTS}
        try:
            segments = tuple(
                SegmentFile(segment["file"], tuple(segment["inputs"]), tuple(segment["outputs"]))
                for segment in content["segments"]
            )
        except (KeyError, TypeError) as error:
            raise ModelError(f"{path} has a damaged list of segments ({error!r}): {AGAIN}") from error
        exits = [layer for layer in content["exit_layers"] if layer or not content["linear"]]
        if len(segments) != len(exits):
            raise ModelError(f"{path} has {len(segments)} segments for {len(exits)} exits: {AGAIN}")
        return cls(**{name: content[name] for name in names} | {"segments": segments})

    def verify(self, folder: Path) -> None:
        """Compare every file with its checksum.

        Raises:
            ModelError: a file is missing, or differs from the exported one.
        """
        for name in self.files:
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(f"{folder} lacks {name}: copy the whole folder, or {AGAIN}")
        with ThreadPoolExecutor(usable_cores()) as pool:  # in one thread this is most of a cold start
            checksums = list(pool.map(lambda name: sha256(folder / name), self.files))
        for (name, expected), checksum in zip(self.files.items(), checksums, strict=True):
            path = folder / name
            if checksum != expected:
                raise ModelError(
                    f"{path} is not the file that was exported (sha256 differs): copy it again, or {AGAIN}"
                )
        needed = {
            self.tokenizer,
            self.policy,
            self.linear,
            self.fused_graph,
            *(segment.file for segment in self.segments),
        }
        if unlisted := sorted(needed - {""} - set(self.files)):
            raise ModelError(f"{folder / FILE_NAME} has no checksum of {', '.join(unlisted)}: {AGAIN}")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
