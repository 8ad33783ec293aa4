"""A plain server of one ONNX graph, as many write it with FastAPI: a peer of `offramp bench service`.

It knows no exits. `python -m offramp.bench.plain_server FOLDER PORT` reads a folder in Hugging Face's layout, with
`config.json`, `tokenizer.json` and `onnx/model_quantized.onnx`. With `--batching`, requests that come within two
milliseconds share a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
WAIT_SECONDS, MOST_ROWS = 0.002, 32


class Body(BaseModel):
    """Texts to classify."""

    texts: list[str]


class Classifier:
    """The whole model, with the defaults of ONNX Runtime."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.labels = [config["id2label"][str(k)] for k in range(len(config["id2label"]))]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(config["max_position_embeddings"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(folder / "onnx" / "model_quantized.onnx"), options)
        self.inputs = [value.name for value in self.session.get_inputs()]

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        encodings = self.tokenizer.encode_batch(texts)
        feeds = {name: np.array([getattr(row, FIELDS[name]) for row in encodings]) for name in self.inputs}
        logits = self.session.run(["logits"], feeds)[0]
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        return [
            {"label": self.labels[k], "score": float(row[k])} for k, row in zip(best, scores, strict=True)
        ]


class Batches:
    """Collects the requests that come within a short time, and runs them together."""

    def __init__(self, classify: Classifier) -> None:
        self.classify = classify
        self.waiting: asyncio.Queue[tuple[list[str], asyncio.Future[Any]]] = asyncio.Queue()

    async def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((texts, future))
        answers: list[dict[str, Any]] = await future
        return answers

    async def run(self) -> None:
        while True:
            batch = [await self.waiting.get()]
            await asyncio.sleep(WAIT_SECONDS)
            while not self.waiting.empty() and sum(len(texts) for texts, _ in batch) < MOST_ROWS:
                batch.append(self.waiting.get_nowait())
            answers = iter(
                await asyncio.to_thread(self.classify, [text for texts, _ in batch for text in texts])
            )
            for texts, future in batch:
                future.set_result([next(answers) for _ in texts])


def make_app(folder: Path, threads: int, batching: bool) -> FastAPI:
    """The application, with a single endpoint."""
    classify = Classifier(folder, threads)
    batches = Batches(classify)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batches.run())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    async def in_batches(body: Body) -> list[dict[str, Any]]:
        return await batches(body.texts)

    def alone(body: Body) -> list[dict[str, Any]]:
        return classify(body.texts)

    app.post("/predict")(in_batches if batching else alone)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batching", action="store_true")
    given = parser.parse_args()
    app = make_app(given.folder, given.threads, given.batching)
    uvicorn.run(app, port=given.port, log_level="warning", access_log=False)
