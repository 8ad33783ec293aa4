"""The one door to the attacked model: it batches, remembers, and counts what is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp._core.errors import ConfigError, DataError, ModelError
from offramp._core.text import clean_text
from offramp._core.trace import Kind, Trace
from offramp.attacks.account import Account, Answer, Key, Look
from offramp.attacks.text import AttackedText, word_tokens
from offramp.engine.batching import batches, check_batch_size
from offramp.engine.policy import Policy
from offramp.model.base import MultiExitOutput, SegmentedModel
from offramp.model.encoding import TextEncoder

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (batch, exits, classes), exit (batch,) -> (batch,)
Request = tuple[Account, Sequence[AttackedText]]


class Victim:
    """A model under a policy, as an attacker sees it: texts in, answers out.

    Args:
        model: a multi-exit model or cascade with its tokenizer.
        policy: when it leaves.
        batch_size: texts run at once.
        max_forward: most texts that may be run for one example; None for no limit.
        max_gradient: most gradients that may be taken for one example; None for no limit.

    Raises:
        CriterionError: the policy was made for another model or task.
        ModelError: the model has no tokenizer, or none that knows where in the text its tokens stand.
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
        policy.check(model.exit_layers, model.kind, model.gates)
        self.encoder = TextEncoder.of(model)
        if not self.encoder.tokenizer.is_fast:
            raise ModelError(
                "an attack needs a fast tokenizer (one that knows the characters behind each token), got "
                f"{type(model.tokenizer).__name__}: set model.tokenizer to the fast one of its backbone"
            )
        for name, value in {"max_forward": max_forward, "max_gradient": max_gradient}.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}: leave it out for no limit")
        self.model, self.policy, self.batch_size = model, policy, check_batch_size(batch_size)
        self.max_forward, self.max_gradient = max_forward, max_gradient
        self.own = self.account()  # of `query` and `gradients`
        with evaluating(model):
            model.costs(np.array([1]))  # counted on the modules once, before any inference mode

    @property
    def kind(self) -> Kind:
        """`classification` or `regression`."""
        return self.model.kind

    def account(self) -> Account:
        """A fresh account, for one example."""
        return Account(self.max_forward, self.max_gradient)

    def query(self, texts: Sequence[AttackedText]) -> list[Answer]:
        """Answers to the texts of one example, on the victim's own account; see `query_many`."""
        return self.query_many([(self.own, texts)])[0]

    def query_many(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Answer the texts of several examples in shared batches; what one has asked before is not run again.

        Returns:
            For each account the answers in the order of its texts: only those of the first texts, as many
            as its budget allowed.
        """
        asked = [account.affordable(texts) for account, texts in requests]
        fresh = [
            (account, key)
            for (account, _), keys in zip(requests, asked, strict=True)
            for key in dict.fromkeys(keys)
            if key not in account.answers
        ]
        started = time.perf_counter()
        answers = self._run([key for _, key in fresh])
        share = (time.perf_counter() - started) / max(len(fresh), 1)
        for (account, key), answer in zip(fresh, answers, strict=True):
            account.pay(key, answer, share)
        found = [[a.answers[key] for key in keys] for (a, _), keys in zip(requests, asked, strict=True)]
        for account, _ in requests:
            account.forget()
        return found

    def gradients(self, texts: Sequence[AttackedText], loss: Loss) -> list[Look]:
        """Gradients for texts of one example, on the victim's own account; see `gradients_many`."""
        return self.gradients_many([(self.own, texts)], loss)[0]

    def gradients_many(self, requests: Sequence[Request], loss: Loss) -> list[list[Look]]:
        """The gradient of a loss at every token embedding, one text at a time and fresh at every call.

        Args:
            requests: accounts and texts.
            loss: of the scaled logits `(batch, exits, classes)` and current exits `(batch,)` to `(batch,)`.

        Returns:
            For each account a look at each of its first texts, as many as its budget allowed.
        """
        allowed = [texts[: account.gradients_left(len(texts))] for account, texts in requests]
        started = time.perf_counter()
        looks = iter(self._differentiate([text for texts in allowed for text in texts], loss))
        share = (time.perf_counter() - started) / max(sum(map(len, allowed)), 1)
        for (account, _), texts in zip(requests, allowed, strict=True):
            account.gradient += len(texts)
            account.seconds += share * len(texts)
        return [[next(looks) for _ in texts] for texts in allowed]

    def look(self, texts: Sequence[AttackedText]) -> list[Look]:
        """The texts as the model reads them; the model is not asked, so nothing is counted."""
        if not texts:
            return []
        first, second = _columns([text.segments for text in texts])
        batch = self.encoder.tokenizer(
            list(map(clean_text, first)),
            None if second is None else list(map(clean_text, second)),
            truncation=True,
            max_length=self.encoder.max_length,
            return_offsets_mapping=True,
        )
        return [
            Look(
                text,
                batch["input_ids"][i],
                word_tokens(text, batch["offset_mapping"][i], batch.sequence_ids(i)),
            )
            for i, text in enumerate(texts)
        ]

    def _batches(self, segments: Sequence[Key]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Batches of texts of like length, padded to the longest among them: rows and model inputs."""
        encodings = self.encoder(*_columns(segments))
        for rows, batch in batches(encodings, self.batch_size, self.encoder.pad_values):
            yield rows.tolist(), {k: torch.as_tensor(v, device=self.model.device) for k, v in batch.items()}

    def _run(self, segments: Sequence[Key]) -> list[Answer]:
        if not segments:
            return []
        answers: dict[int, Answer] = {}
        with evaluating(self.model), torch.inference_mode():
            for rows, inputs in self._batches(segments):
                trace = self._trace(self.model(**inputs), inputs["attention_mask"])
                answers.update(zip(rows, self._answers(trace), strict=True))
        return [answers[i] for i in range(len(segments))]

    def _trace(self, output: MultiExitOutput, mask: Tensor) -> Trace:
        """The model's own trace of one batch."""
        assert output.logits is not None
        costs, full = self.model.costs(mask.sum(dim=1).cpu().numpy())
        return Trace(
            logits=_numpy(output.logits),
            exit_layers=self.model.exit_layers,
            costs=costs,
            full_cost=full,
            gates=None if output.gates is None else _numpy(output.gates),
            kind=self.kind,
        )

    def _answers(self, trace: Trace) -> list[Answer]:
        decisions = self.policy.decide(trace)
        logits = self.policy.scaled(trace).logits
        return [
            Answer(
                logits=logits[i],
                exit=int(decisions.exit[i]),
                layer=int(decisions.layer[i]),
                prediction=decisions.prediction[i].item(),
                cost=float(decisions.cost[i]),
                full_cost=float(trace.full_cost[i]),
            )
            for i in range(len(trace))
        ]

    def _differentiate(self, texts: Sequence[AttackedText], loss: Loss) -> list[Look]:
        if not texts:
            return []
        looks = self.look(texts)
        # A caller's no_grad or inference_mode must not reach the graph.
        with evaluating(self.model), torch.inference_mode(False), torch.enable_grad():
            for rows, inputs in self._batches([text.segments for text in texts]):
                gradients = self._embedding_gradients(inputs, loss)
                for place, row in enumerate(rows):
                    own = tuple(g[place, : len(looks[row].ids)] for g in gradients)
                    looks[row] = replace(looks[row], gradients=own)
        return looks

    def _embedding_gradients(self, inputs: dict[str, Tensor], loss: Loss) -> tuple[Tensor, ...]:
        """For each embedding table `(batch, length, dim)`; nothing is left in any parameter's `.grad`."""
        embeds = [
            table(inputs["input_ids"]).detach().requires_grad_() for table in self.model.embedding_tables()
        ]
        output = self.model(**inputs, inputs_embeds=embeds)
        exits = self.policy.decide(self._trace(output, inputs["attention_mask"])).exit
        logits = output.logits.float()
        if self.policy.temperatures is not None:
            logits = logits / logits.new_tensor(self.policy.temperatures)[None, :, None]
        total = loss(logits, torch.as_tensor(exits, device=logits.device)).sum()
        return torch.autograd.grad(total, embeds, allow_unused=True, materialize_grads=True)


def _columns(segments: Sequence[Key]) -> tuple[list[str], list[str] | None]:
    """First segments, and second ones or None."""
    if len({len(s) for s in segments}) > 1:
        raise DataError("texts with and without a text_pair cannot be mixed: give every example one, or none")
    return [s[0] for s in segments], [s[1] for s in segments] if len(segments[0]) > 1 else None


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; every module's own mode is restored, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
