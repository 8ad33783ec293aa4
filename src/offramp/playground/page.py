"""The page and its parts as HTML; every text is escaped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from offramp._core.errors import OfframpError
from offramp._core.text import one_line, visible
from offramp._core.trace import Trace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.playground.attack import AttackStep, recipes_for
from offramp.playground.ladder import Ladder, climb, scale
from offramp.playground.models import PlayModel
from offramp.playground.state import MOST_CHARACTERS, MOST_SIDES, MOST_WORDS, PageState, Side

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class SideView:
    """What a side shows.

    Attributes:
        side: the model and its rule.
        ladder: the way of the text; None if there is no text, or a problem.
        before: the way of the text before an attack; None without one.
        full: whether the text fills the model's input.
        milliseconds: that the model took for all exits.
        problem: why there is no ladder.
    """

    side: Side
    ladder: Ladder | None = None
    before: Ladder | None = None
    full: bool = False
    milliseconds: float = 0.0
    problem: str = ""


def render_page(state: PageState, models: Sequence[PlayModel]) -> str:
    """The whole page."""
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            state=state,
            models=models,
            views=side_views(state),
            scale=scale,
            recipes=recipes_for(state.sides[state.target].model),
            limits={"characters": MOST_CHARACTERS, "sides": MOST_SIDES, "words": MOST_WORDS},
            step=None,
        )
    )


def render_step(state: PageState, step: AttackStep) -> str:
    """The result's part of the page for a text under attack."""
    first, *second = step.text.segments
    attacked = replace(state, text=first, text_pair=second[0] if second else state.text_pair)
    views = [
        replace(view, before=clean.ladder)
        for view, clean in zip(side_views(attacked), side_views(state), strict=True)
    ]
    return (
        environment()
        .get_template("result.html.j2")
        .render(state=attacked, views=views, step=step, pieces=pieces(step.text))
    )


def render_problem(state: PageState, problem: str) -> str:
    """The result's part of the page for an attack that cannot run."""
    state = replace(state, problems=(one_line(problem),))
    return (
        environment().get_template("result.html.j2").render(state=state, views=side_views(state), step=None)
    )


def side_views(state: PageState) -> list[SideView]:
    """What the sides show. A model that stands on both runs once."""
    if not state.text.strip() and not (state.pair and state.text_pair.strip()):
        return [SideView(side) for side in state.sides]
    traces: dict[str, tuple[Trace, bool, float]] = {}
    views = []
    for side in state.sides:
        model = side.model
        try:
            if model.name not in traces:
                started = time.perf_counter()
                trace, full = model.trace(state.text, state.text_pair)
                traces[model.name] = trace, full, 1e3 * (time.perf_counter() - started)
            trace, full, milliseconds = traces[model.name]
            views.append(
                SideView(side, climb(trace, side.policy, model.labels), full=full, milliseconds=milliseconds)
            )
        except OfframpError as error:
            views.append(SideView(side, problem=one_line(str(error))))
    return views


def pieces(text: AttackedText) -> list[list[tuple[str, str | None]]]:
    """For each segment of an attacked text its stretches: characters, and the word that they replace or None."""
    changed = set(text.changed)
    segments: list[list[tuple[str, str | None]]] = [[] for _ in text.original]
    done = [0] * len(segments)
    for index, (segment, start, end) in enumerate(text.spans):
        if index in changed:
            string = text.segments[segment]
            segments[segment] += [(string[done[segment] : start], None)]
            segments[segment] += [(string[start:end], text.original_word(index))]
            done[segment] = end
    rests = ((string[end:], None) for string, end in zip(text.segments, done, strict=True))
    return [[*stretches, rest] for stretches, rest in zip(segments, rests, strict=True)]


@cache
def environment() -> Environment:
    """The template engine: escapes every value, and writes out invisible characters unless a value is Markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    return Environment(
        loader=PackageLoader("offramp.playground"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
