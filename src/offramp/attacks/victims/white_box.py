"""A white-box victim: a model under a policy, with its answers, its gradients and its times."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp._core.errors import CriterionError, ModelError
from offramp._core.text import clean_text
from offramp._core.trace import Trace
from offramp.attacks.text.attacked_text import AttackedText, word_tokens
from offramp.attacks.victims.base import Answer, Key, Loss, OpenVictim, TokenizedText, segment_columns
from offramp.attacks.victims.ranking import RankedBatch, Ranking
from offramp.engine.batching import PaddedBatch, batches, check_batch_size
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder
from offramp.model.heads import MultiExitOutput


class WhiteBoxVictim(OpenVictim):
    """A model under a policy, with its inside open to the attacker.

    Args:
        model: a multi-exit model or cascade with its tokenizer.
        policy: when the model leaves.
        batch_size: texts run at once.
        max_forward, max_gradient: see `Victim`.

    Raises:
        CriterionError: the policy was made for another model or task.
        ModelError: the model has no tokenizer, or a slow one, which does not report the positions of its tokens.
        ConfigError: a batch size or budget below 1.
    """

    def __init__(
        self,
        model: SegmentedModel,
        policy: Policy,
        *,
        batch_size: int = 64,
        max_forward: int | None = None,
        max_gradient: int | None = None,
    ) -> None:
        policy.check(model.exit_layers, model.kind, model.gates, model.num_labels)
        if policy.criterion.needs_residual:
            raise CriterionError(
                f"attacks with gradients know no residuals, which {policy.criterion.name!r} needs: attack another "
                "rule, or attack the engine with a black-box recipe"
            )
        self.encoder: TextEncoder = TextEncoder.of(model)
        if not self.encoder.tokenizer.is_fast:
            raise ModelError(
                "an attack needs a fast tokenizer (which reports the characters of each token), got "
                f"{type(model.tokenizer).__name__}: set model.tokenizer to the fast one of its backbone"
            )
        super().__init__(max_forward, max_gradient)
        self.kind, self.labels, self.probabilities = model.kind, tuple(model.labels), True
        self.pair = model.pair
        self.model, self.policy, self.batch_size = model, policy, check_batch_size(batch_size)
        self._engine: Engine | None = None  # made on the first time measurement
        with evaluating(model):
            model.flops(np.array([1]))  # counted on the modules once, before any inference mode

    @property
    def white_box(self) -> WhiteBoxVictim:
        return self

    def describe(self) -> dict[str, Any]:
        described = {"policy": describe_policy(self.policy), "weights": weights_fingerprint(self.model)}
        return {**described, "max_length": self.encoder.max_length}

    def stopwatch(self, segments: Key) -> float:
        """Seconds of the engine for one text: tokenisation, and the layers until it leaves."""
        with evaluating(self.model):  # an engine alone would leave the model in evaluation mode
            if self._engine is None:
                self._engine = Engine(self.model, self.policy, batch_size=1)
            return time_engine(self._engine, segments)

    def inspect(self, texts: Sequence[AttackedText]) -> list[TokenizedText]:
        if not texts:
            return []
        first, second = segment_columns([text.segments for text in texts])
        batch = self.encoder.tokenizer(
            list(map(clean_text, first)),
            None if second is None else list(map(clean_text, second)),
            truncation=True,
            max_length=self.encoder.max_length,
            return_offsets_mapping=True,
        )
        return [
            TokenizedText(
                text,
                batch["input_ids"][i],
                word_tokens(text, batch["offset_mapping"][i], batch.sequence_ids(i)),
            )
            for i, text in enumerate(texts)
        ]

    def run(self, segments: Sequence[Key]) -> list[Answer]:
        if not segments:
            return []
        answers: dict[int, Answer] = {}
        with evaluating(self.model), torch.inference_mode():
            for rows, inputs in self._batches(segments):
                answers.update(zip(rows, self.answers(inputs), strict=True))
        return [answers[i] for i in range(len(segments))]

    def run_ranked(self, segments: Sequence[Key], rankings: Sequence[Ranking]) -> list[Answer | None]:
        answers: list[Answer | None] = [None] * len(segments)
        if not segments:
            return answers
        positions = [next(ranking.positions) for ranking in rankings]
        with evaluating(self.model), torch.inference_mode():
            for rows, inputs in self._padded(segments):
                entries = [(rankings[row], positions[row]) for row in rows]
                ranked = RankedBatch(TorchSegments(self.model), self.policy, entries)
                finished = ranked.run(inputs)
                if finished:
                    logits, gates = ranked.evidence(finished)
                    trace = self._trace(logits, gates, inputs["attention_mask"][finished].sum(axis=1))
                    for i, answer in zip(finished, self._answers(trace), strict=True):
                        answers[rows[i]] = answer
        return answers

    def answers(self, inputs: dict[str, Tensor]) -> list[Answer]:
        """Answers to one batch of model inputs; nothing is counted or remembered."""
        return self._answers(self._full_trace(self.model(**inputs), inputs["attention_mask"]))

    def _answers(self, trace: Trace) -> list[Answer]:
        decisions = self.policy.decide(trace)
        logits = trace.scaled(self.policy.temperatures).logits
        return [
            Answer(
                logits=logits[i],
                exit=int(decisions.exit[i]),
                layer=int(decisions.layer[i]),
                prediction=decisions.prediction[i].item(),
                spent=float(decisions.flops[i]),
                full_spent=float(trace.full_flops[i]),
                gates=None if trace.gates is None else trace.gates[i],
            )
            for i in range(len(trace))
        ]

    def differentiate(self, texts: Sequence[AttackedText], loss: Loss) -> list[TokenizedText]:
        if not texts:
            return []
        inspected = self.inspect(texts)
        # A caller's no_grad or inference_mode must not reach the graph.
        with evaluating(self.model), torch.inference_mode(False), torch.enable_grad():
            for rows, inputs in self._batches([text.segments for text in texts]):
                gradients = self._embedding_gradients(inputs, loss)
                for i, row in enumerate(rows):
                    own = tuple(g[i, : len(inspected[row].ids)] for g in gradients)
                    inspected[row] = replace(inspected[row], gradients=own)
        return inspected

    def _batches(self, segments: Sequence[Key]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Rows and model inputs, as in `_padded`."""
        for rows, batch in self._padded(segments):
            yield rows, {k: torch.as_tensor(v, device=self.model.device) for k, v in batch.items()}

    def _padded(self, segments: Sequence[Key]) -> Iterator[tuple[list[int], PaddedBatch]]:
        """Batches of texts of similar length, padded to the longest text: rows and inputs."""
        encodings = self.encoder(*segment_columns(segments))
        alike = self.model.reads_padding
        for rows, batch in batches(encodings, self.batch_size, self.encoder.pad_values, alike=alike):
            yield rows.tolist(), batch

    def _full_trace(self, output: MultiExitOutput, mask: Tensor) -> Trace:
        assert output.exit_logits is not None
        gates = None if output.gates is None else _numpy(output.gates)
        return self._trace(_numpy(output.exit_logits), gates, mask.sum(dim=1).cpu().numpy())

    def _trace(
        self, logits: NDArray[np.floating], gates: NDArray[np.float32] | None, lengths: NDArray[np.int64]
    ) -> Trace:
        flops, full = self.model.flops(lengths)
        return Trace(logits, self.model.exit_layers, flops, full, gates=gates, kind=self.kind)

    def _embedding_gradients(self, inputs: dict[str, Tensor], loss: Loss) -> tuple[Tensor, ...]:
        """For each embedding table `(batch, length, dim)`; no parameter's `.grad` changes."""
        embeds = [
            table(inputs["input_ids"]).detach().requires_grad_() for table in self.model.embedding_tables()
        ]
        output = self.model(**inputs, inputs_embeds=embeds)
        exits = self.policy.decide(self._full_trace(output, inputs["attention_mask"])).exit
        logits = output.exit_logits.float()
        if self.policy.temperatures is not None:
            logits = logits / logits.new_tensor(self.policy.temperatures)[None, :, None]
        total = loss(logits, torch.as_tensor(exits, device=logits.device)).sum()
        return torch.autograd.grad(total, embeds, allow_unused=True, materialize_grads=True)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()


def time_engine(engine: Engine, segments: Key) -> float:
    """Seconds of one text through an engine, from the string to the decision."""
    first, second = segment_columns([segments])
    started = time.perf_counter()
    engine.decide(first, second)
    return time.perf_counter() - started


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and restore every module's own mode, even after an error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Everything that decides a policy's exits and answers, as JSON."""
    criterion = {"name": policy.criterion.name, **asdict(policy.criterion)}
    described = {
        "criterion": criterion,
        "exit_layers": policy.exit_layers,
        "temperatures": policy.temperatures,
    }
    return described | ({"recall": True} if policy.recall else {})


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all weights: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
