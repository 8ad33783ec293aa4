"""Classifiers that optimum and sentence-transformers export, run by an interpreter that has them and not offramp.

`python -I optimum_worker.py export NAME FOLDER THREADS` makes an export in `FOLDER/NAME`; `answer` in its place loads
it and answers: a line of standard input holds texts as JSON, a line of standard output classes and seconds. FOLDER
holds what `optimum_peers.write_checkpoint` wrote: a sentence encoder, its head, and texts for int8 scales.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHECKPOINT, HEAD, CALIBRATION = "checkpoint", "head.npz", "calibration.json"
ONNX, OPENVINO = "onnx/model_qint8_quantized.onnx", "openvino/openvino_model_qint8_quantized.xml"
Classify = Callable[
    [Sequence[Sequence[str]]], NDArray[Any]
]  # texts, or pairs of them, to classes (examples,)


class Head:
    """The trained head of an encoder.

    Args:
        folder: where `optimum_peers.write_checkpoint` wrote it.

    Attributes:
        pooling: `mean` of all tokens, or the `first` token.
        max_length: most tokens of a text.
        dense: weight and bias of a layer with tanh before the classifier; empty for none.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / HEAD) as arrays:
            self.pooling, self.max_length = str(arrays["pooling"]), int(arrays["max_length"])
            self.weight, self.bias = arrays["weight"], arrays["bias"]
            self.dense = [arrays[name] for name in ("dense_weight", "dense_bias") if name in arrays]

    def of_tokens(self, hidden: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        """Classes of token states `(batch, length, dim)` and their mask `(batch, length)`."""
        if self.pooling == "mean":
            weights = mask.astype(hidden.dtype)
            pooled = np.einsum("bld,bl->bd", hidden, weights) / weights.sum(axis=1)[:, None]
        else:
            pooled = hidden[:, 0]
        if self.dense:
            pooled = np.tanh(pooled @ self.dense[0].T + self.dense[1])
        return self.of_embeddings(pooled)

    def of_embeddings(self, pooled: NDArray[Any]) -> NDArray[Any]:
        """Classes of sentence embeddings `(batch, dim)`; the value itself for regression."""
        logits = pooled @ self.weight.T + self.bias
        return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(axis=1)


class Package(ABC):
    """One package with one runtime; see the module for the arguments."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads, self.head = folder, threads, Head(folder)

    @abstractmethod
    def export(self, target: Path) -> None:
        """Write the int8 export to a new folder."""

    @abstractmethod
    def load(self, target: Path) -> Classify:
        """Open what `export` wrote."""

    @property
    def calibration(self) -> list[list[str]]:
        """Texts on which int8 scales are taken."""
        return list(json.loads((self.folder / CALIBRATION).read_text(encoding="utf-8")))


class Optimum(Package):
    """Optimum's own model class and its tokenizer, with the head in numpy."""

    @cached_property
    def tokenizer(self) -> Any:
        """That of the checkpoint."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder / CHECKPOINT)

    def tokenise(self, texts: Sequence[Sequence[str]], **options: Any) -> Any:
        """Token ids, as the tokenizer's documentation says."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        return self.tokenizer(*columns, truncation=True, max_length=self.head.max_length, **options)

    def classify(self, model: Any) -> Classify:
        """Answers with a loaded model."""

        def answer(texts: Sequence[Sequence[str]]) -> NDArray[Any]:
            batch = self.tokenise(texts, padding=True, return_tensors="np")
            return self.head.of_tokens(np.asarray(model(**batch).last_hidden_state), batch["attention_mask"])

        return answer


class OptimumOnnx(Optimum):
    """Dynamic int8 of the usage guide: https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/quantization."""

    def export(self, target: Path) -> None:
        from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        model = ORTModelForFeatureExtraction.from_pretrained(self.folder / CHECKPOINT, export=True)
        config = getattr(AutoQuantizationConfig, instruction_set())(is_static=False, per_channel=False)
        ORTQuantizer.from_pretrained(model).quantize(save_dir=target, quantization_config=config)

    def load(self, target: Path) -> Classify:
        from optimum.onnxruntime import ORTModelForFeatureExtraction

        options = {"file_name": "model_quantized.onnx", "session_options": session_options(self.threads)}
        return self.classify(ORTModelForFeatureExtraction.from_pretrained(target, **options))


class OptimumOpenVino(Optimum):
    """Static int8 of the guide: https://huggingface.co/docs/optimum-intel/openvino/optimization."""

    def export(self, target: Path) -> None:
        from datasets import Dataset
        from optimum.intel import OVConfig, OVModelForFeatureExtraction, OVQuantizationConfig, OVQuantizer

        model = OVModelForFeatureExtraction.from_pretrained(self.folder / CHECKPOINT, export=True)
        rows = Dataset.from_dict(dict(self.tokenise(self.calibration, padding=True)))
        config = OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(rows)))
        quantizer = OVQuantizer.from_pretrained(model)
        quantizer.quantize(calibration_dataset=rows, ov_config=config, save_directory=target)

    def load(self, target: Path) -> Classify:
        from optimum.intel import OVModelForFeatureExtraction

        options = openvino_options(self.threads)
        return self.classify(OVModelForFeatureExtraction.from_pretrained(target, ov_config=options))


class SentenceTransformers(Package):
    """A `SentenceTransformer` of its own, with the head on its embeddings in numpy."""

    backend, file = "", ""

    @abstractmethod
    def quantise(self, model: Any, target: str) -> None:
        """Write the int8 export into the folder of a model that was loaded with the backend."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """How the backend is told the number of threads."""

    def export(self, target: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self.write_model(target)
        self.quantise(SentenceTransformer(str(target), backend=self.backend), str(target))

    def write_model(self, target: Path) -> None:
        """The encoder with its pooling as a folder of sentence-transformers."""
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Dense, Pooling, Transformer

        encoder = Transformer(str(self.folder / CHECKPOINT), max_seq_length=self.head.max_length)
        width = encoder.get_word_embedding_dimension()
        modules: list[Any] = [encoder, Pooling(width, "mean" if self.head.pooling == "mean" else "cls")]
        if self.head.dense:
            weight, bias = map(torch.from_numpy, self.head.dense)
            modules.append(
                Dense(width, width, activation_function=torch.nn.Tanh(), init_weight=weight, init_bias=bias)
            )
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(target))

    def load(self, target: Path) -> Classify:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(self.threads)
        options = {"file_name": self.file, **self.options()}
        model = SentenceTransformer(str(target), backend=self.backend, device="cpu", model_kwargs=options)

        def answer(texts: Sequence[Sequence[str]]) -> NDArray[Any]:
            return self.head.of_embeddings(model.encode([text for (text,) in texts], show_progress_bar=False))

        return answer


class SentenceTransformersOnnx(SentenceTransformers):
    """Dynamic int8: https://sbert.net/docs/sentence_transformer/usage/efficiency.html."""

    backend, file = "onnx", ONNX

    def quantise(self, model: Any, target: str) -> None:
        from sentence_transformers import export_dynamic_quantized_onnx_model

        export_dynamic_quantized_onnx_model(model, instruction_set(), target, file_suffix="qint8_quantized")

    def options(self) -> dict[str, Any]:
        return {"session_options": session_options(self.threads)}


class SentenceTransformersOpenVino(SentenceTransformers):
    """Static int8 of the same page. Its calibration data come from a data set by name: here, a file."""

    backend, file = "openvino", OPENVINO

    def quantise(self, model: Any, target: str) -> None:
        from optimum.intel import OVQuantizationConfig
        from sentence_transformers import export_static_quantized_openvino_model

        lines = [json.dumps({"text": text}) for (text,) in self.calibration]
        rows = Path(target) / "calibration" / "train.jsonl"
        rows.parent.mkdir(exist_ok=True)
        rows.write_text("\n".join(lines), encoding="utf-8")
        source = {"dataset_name": str(rows.parent), "dataset_config_name": "default"}
        source |= {"dataset_split": "train", "column_name": "text"}
        config = OVQuantizationConfig(num_samples=len(lines))
        export_static_quantized_openvino_model(model, config, target, **source)

    def options(self) -> dict[str, Any]:
        return {"ov_config": openvino_options(self.threads)}


PEERS: dict[str, type[Package]] = {
    "optimum-onnx-full": OptimumOnnx,
    "optimum-openvino-full": OptimumOpenVino,
    "sbert-onnx-full": SentenceTransformersOnnx,
    "sbert-openvino-full": SentenceTransformersOpenVino,
}


def instruction_set() -> str:
    """The name under which both packages document the int8 settings of this processor."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    cpu = Path("/proc/cpuinfo")
    return "avx512_vnni" if cpu.exists() and "avx512_vnni" in cpu.read_text() else "avx2"


def session_options(threads: int) -> Any:
    """Options of an ONNX Runtime session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def openvino_options(threads: int) -> dict[str, Any]:
    """Options of a compiled OpenVINO model."""
    return {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}


def answer_lines(classify: Classify, lines: Any, write: Callable[[str], object]) -> None:
    """Answer requests until the input ends; seconds are those of the answer alone."""
    gc.disable()  # as during the rounds of the other side
    write(json.dumps({"ready": True}))
    for line in lines:
        texts = json.loads(line)
        before = perf_counter()
        answers = classify(texts)
        seconds = perf_counter() - before
        write(json.dumps({"answers": answers.tolist(), "seconds": seconds, "peak_mib": peak_mib()}))


def peak_mib() -> float | None:
    """Peak resident memory of this process; None where the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) / 1024 for line in lines if "VmHWM" in line), None)


def main(task: str, name: str, folder: Path, threads: int) -> None:
    """Export or answer; see the module."""
    peer = PEERS[name](folder, threads)
    if task == "export":
        peer.export(folder / name)
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print, and the pipe is for answers alone

    def write(line: str) -> None:
        print(line, file=answers, flush=True)

    answer_lines(peer.load(folder / name), sys.stdin, write)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
