"""An attack on a single text, one step at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.seeding import generator
from offramp.attacks.text.attacked_text import AttackedText
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.playground.models import PlayModel

if TYPE_CHECKING:
    from offramp.attacks.prepared import PreparedAttack
    from offramp.attacks.recipes.base import Composition
    from offramp.attacks.search.base import Request, SearchState, Steps
    from offramp.attacks.victims.base import Answer

OUTSIDE = ("slowbert", "random-char")  # recipes that need neither the weights nor the vocabulary of a model
DEFAULT = "same-word"  # where the model allows it
BATCH = 16  # texts run at once: small, so that a stop and the time limit take effect soon


@dataclass(frozen=True)
class AttackStep:
    """The state of an attack.

    Attributes:
        text: the strongest text so far.
        queries: texts that the model has run.
        gradients: gradients taken.
        seconds: since the start.
        ending: why the attack is over; empty while it runs.
    """

    text: AttackedText
    queries: int
    gradients: int
    seconds: float
    ending: str = ""


def recipes_for(model: PlayModel) -> list[str]:
    """Recipes that can attack a single text: all where there are weights, else those of a black box."""
    if model.model is None:
        return list(OUTSIDE)
    from offramp.attacks import RECIPES

    allowed = ("exits",) if model.segments.kind == "regression" else ("gradients", "probabilities", "exits")
    return [name for name, recipe in RECIPES.items() if not recipe.is_universal and recipe.access in allowed]


def attack_steps(
    model: PlayModel,
    policy: Policy,
    segments: tuple[str, ...],
    *,
    recipe: str,
    max_changed_words: int,
    seconds: float,
    seed: int = 0,
) -> Iterator[AttackStep]:
    """Attack a text, and yield the state after each of the attack's requests to the model.

    Args:
        model: the victim; an exported folder is a black box.
        policy: under which it leaves.
        segments: the text, or the two texts of a pair.
        recipe: a key of `RECIPES`.
        max_changed_words: most words that may change.
        seconds: after which the attack ends with the strongest text so far.
        seed: of everything that the recipe draws.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigError: an unknown recipe, a text without words, or a recipe that needs more than the model shows.
        DataError: a lexicon or a language model of the recipe is missing and cannot be downloaded.
    """
    started = time.monotonic()
    text = AttackedText(segments)
    if not text.num_words:
        raise ConfigError("expected a text with words to attack, got none: type a sentence first")
    yield AttackStep(text, 0, 0, 0.0)  # what follows takes seconds the first time
    try:
        from offramp.attacks.search.base import search_rounds

        attack = prepare(model, policy, recipe, max_changed_words, seed)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "torch") from error
    composition = attack.composition
    watched = WatchedSearch(composition, text)
    search = composition.search.steps(text, composition, generator(seed, "attack", 0))
    for (running,) in search_rounds(
        attack.spec.victim,
        [watched.steps(search)],
        gradients=composition.needs_gradient,
        queries=composition.queries,
    ):
        elapsed, budget = time.monotonic() - started, running.budget
        ending = ending_of(running.request is None, watched.state, elapsed > seconds)
        yield AttackStep(watched.best, budget.forward, budget.gradient, elapsed, ending)
        if ending:
            return


def prepare(
    model: PlayModel, policy: Policy, recipe: str, max_changed_words: int, seed: int
) -> PreparedAttack:
    """The attack, ready to run: on the weights where gradients know the rule, else on an engine; see `attack_steps`."""
    from offramp.attacks import Options
    from offramp.attacks.prepared import AttackSpec
    from offramp.attacks.victims.black_box import as_victim

    if model.model is None or policy.criterion.needs_residual:
        victim = as_victim(Engine(model.model or model.folder, policy))
    else:
        victim = as_victim(model.model, policy, BATCH)
    return AttackSpec(victim, recipe, Options(max_changed_words=max_changed_words), seed, "none").prepare()


def ending_of(over: bool, state: SearchState | None, late: bool) -> str:
    """The reason why an attack ends now; empty if it runs on."""
    if not over:
        return "the time is up" if late else ""
    if state is None or not state.best.done:
        return "the search is over"
    return "the goal is reached" if state.best.text.changed else "the text reaches the goal as it is"


class WatchedSearch:
    """Passes the requests of a search on, and notes the strongest text among the replies.

    Args:
        composition: the attack.
        text: the text before any change.
    """

    def __init__(self, composition: Composition, text: AttackedText) -> None:
        self.composition, self.text = composition, text
        self.state: SearchState | None = None

    @property
    def best(self) -> AttackedText:
        """The strongest text so far."""
        return self.text if self.state is None else self.state.best.text

    def steps(self, search: Steps) -> Steps:
        """The same search."""
        request = next(search)
        while True:
            reply = yield request
            self.note(request, reply)
            try:
                request = search.send(reply)
            except StopIteration as stop:
                assert self.state is not None, "every search asks about the clean text"
                self.state.best = stop.value[1]
                return self.state.clean, self.state.best

    def note(self, request: Request, reply: Any) -> None:
        """Note the answers to the texts of a request; requests for other things do not matter."""
        from offramp.attacks.search.base import Query, Rank, SearchState, score_candidates

        if not isinstance(request, Query | Rank):
            return
        answered: dict[AttackedText, Answer] = {
            # A search also asks about texts with words left out, which are no result.
            text: answer
            for text, answer in zip(request.texts, reply, strict=False)
            if answer is not None and text.original == self.text.original
        }
        if self.state is None and self.text in answered:
            objective = self.composition.objective.against(answered[self.text])
            (clean,) = score_candidates([self.text], [answered[self.text]], objective)
            self.state = SearchState(clean, objective, self.composition.constraints, None)
        if self.state is not None:
            candidates = score_candidates(list(answered), list(answered.values()), self.state.objective)
            self.state.keep_best(candidates)
