"""The services that `offramp bench service` compares, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from offramp._core.errors import ConfigError, OfframpError
from offramp._core.records import write_text
from offramp.model.base import SegmentedModel

START_SECONDS = 120.0  # a service that has not answered by then is given up
STOP_SECONDS = 20.0
PLAIN, PLAIN_BATCHES, INFINITY = (
    "fastapi, full depth",
    "fastapi, full depth, batching",
    "infinity, full depth",
)
OURS, BUDGET = "offramp serve", "offramp serve, work budget"

Labels = Callable[[Any], list[str]]


@dataclass(frozen=True)
class ServerSpec:
    """A service.

    Attributes:
        name: in the results.
        command: that starts it; `{port}` stands for the port.
        path: of the endpoint that classifies.
        texts_field: of a request's body, which holds the texts.
        labels: the label of each text, from the content of an answer.
        extra: further fields of a body.
        keys: API keys, of which every request needs one.
    """

    name: str
    command: tuple[str, ...]
    path: str
    texts_field: str
    labels: Labels
    extra: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def body(self, texts: Sequence[str]) -> str:
        """The body of a request, as JSON on one line."""
        return json.dumps({self.texts_field: list(texts), **self.extra})


@dataclass(frozen=True)
class Running:
    """A service that runs; `seconds` is the time from the start of its process to its first answer."""

    peer: ServerSpec
    port: int
    seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.peer.path}"

    def ask(self, texts: Sequence[str]) -> Any:
        """The content of the answer.

        Raises:
            OfframpError: any other status than 200.
        """
        status, content = _send(self.port, self.peer, self.peer.body(texts))
        if status != 200:
            raise OfframpError(f"{self.peer.name} answered {status}: {content!r:.200}")
        return json.loads(content)

    def get(self, path: str) -> str:
        """The text at another path."""
        return _send(self.port, self.peer, None, path)[1].decode()


def ours(folder: Path, keys: Path, threads: int) -> ServerSpec:
    """`offramp serve` on an exported folder, with a file of keys."""
    command = [sys.executable, "-m", "offramp.cli.main", "serve", f"m={folder}", "--port", "{port}"]
    command += ["--threads", str(threads), "--keys", str(keys), "--log", os.devnull]
    secrets = tuple(line.split()[1] for line in keys.read_text(encoding="utf-8").splitlines())
    return ServerSpec(OURS, tuple(command), "/v1/classify", "texts", own_labels, keys=secrets)


def own_labels(content: Any) -> list[str]:
    """The labels of our own endpoint."""
    return [answer["label"] for answer in content["answers"]]


def plain(folder: Path, threads: int, batching: bool) -> ServerSpec:
    """A plain FastAPI server on a folder that `write_full_depth` wrote."""
    command = [
        sys.executable,
        "-m",
        "offramp.bench.plain_server",
        str(folder),
        "{port}",
        "--threads",
        str(threads),
    ]
    name = PLAIN_BATCHES if batching else PLAIN
    return ServerSpec(
        name,
        (*command, *(["--batching"] if batching else [])),
        "/predict",
        "texts",
        lambda content: [answer["label"] for answer in content],
    )


def infinity(command: Path, folder: Path) -> ServerSpec:
    """infinity's server with ONNX Runtime, its fastest on CPUs, on a folder that `write_full_depth` wrote.

    Its warm-up is left out, since it sends texts that are longer than the exported graph takes.
    """
    options = ["v2", "--model-id", str(folder), "--engine", "optimum", "--device", "cpu", "--port", "{port}"]
    return ServerSpec(
        INFINITY,
        (str(command), *options, "--no-bettertransformer", "--no-model-warmup", "--log-level", "warning"),
        "/classify",
        "input",
        lambda content: [
            max(scores, key=lambda score: score["score"])["label"] for scores in content["data"]
        ],
        {"model": folder.name},
    )


def infinity_versions(command: Path) -> str:
    """The versions that an installed infinity runs with.

    Raises:
        ConfigError: it is not installed there.
    """
    names = ("infinity-emb", "optimum", "onnxruntime", "transformers")
    code = (
        f"from importlib.metadata import version\nprint(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    )
    try:
        ended = subprocess.run(
            [command.parent / "python", "-c", code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"expected the command infinity_emb beside its python, got {command}: give ENVIRONMENT/bin/infinity_emb "
            "of an environment with infinity-emb[server,optimum]"
        ) from error
    return ended.stdout.strip()


def write_full_depth(model: SegmentedModel, graph: Path, target: Path) -> None:
    """Write the whole model as a folder in Hugging Face's layout, for services that know no exits.

    Args:
        model: the trained model.
        graph: its ONNX graph, whose output is `logits`.
        target: the new folder.
    """
    (target / "onnx").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(graph, target / "onnx" / "model_quantized.onnx")
    model.tokenizer.save_pretrained(target)
    backbone: Any = model.backbone
    config = backbone.config.to_dict()
    kind = type(backbone).__name__.removesuffix("Model")
    labels = dict(enumerate(model.labels))
    config |= {"architectures": [f"{kind}ForSequenceClassification"], "id2label": labels}
    config["label2id"] = {label: k for k, label in labels.items()}
    write_text(target / "config.json", json.dumps(config, default=str))


@contextmanager
def running(peer: ServerSpec, texts: Sequence[str], log: Path) -> Iterator[Running]:
    """Start a service, wait for its first answer, and stop it at the end.

    Args:
        peer: the service.
        texts: of the first request.
        log: file that its output is added to.

    Raises:
        OfframpError: it ended, or did not answer.
    """
    port = free_port()
    package = str(Path(__file__).resolve().parents[2])  # whichever copy of it is running
    environment = {**os.environ, "PYTHONPATH": package}
    with log.open("ab") as output:
        started = time.perf_counter()
        command = [argument.replace("{port}", str(port)) for argument in peer.command]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            _wait(process, peer, port, texts, log)
            yield Running(peer, port, time.perf_counter() - started)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(
    process: subprocess.Popen[bytes], peer: ServerSpec, port: int, texts: Sequence[str], log: Path
) -> None:
    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            if _send(port, peer, peer.body(texts))[0] == 200:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > ends:
            raise OfframpError(f"{peer.name} did not answer: {log} has its output")
        time.sleep(0.005)


def _send(port: int, peer: ServerSpec, body: str | None, path: str | None = None) -> tuple[int, bytes]:
    """Status and content; a GET where there is no body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"content-type": "application/json"}
        if peer.keys:
            headers["authorization"] = f"Bearer {peer.keys[0]}"
        connection.request("GET" if body is None else "POST", path or peer.path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_wrk() -> str:
    """The load generator; `ConfigError` where it is not installed."""
    path = shutil.which("wrk")
    if path is None:
        raise ConfigError(
            "wrk, which drives the load, is not installed: apt-get install wrk, or brew install wrk"
        )
    return path
