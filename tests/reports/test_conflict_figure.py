"""The heat map shows what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.evaluation.conflict import Conflict, conflict
from offramp.reports.conflict import conflict_figure, owners_figure


def measured(seed: int = 0, exits: tuple[int, ...] = (1, 2, 4)) -> Conflict:
    gradients = np.random.default_rng(seed).normal(size=(5, exits[-1], len(exits), 6))
    return conflict(gradients @ gradients.swapaxes(2, 3), exits)


def test_every_number_is_written() -> None:
    found = measured()
    (panel, _) = conflict_figure({0: found}, "Where exits pull apart").axes
    told = {text.get_text().rstrip("·") for text in panel.texts}
    numbers = [found.pairs.cosine[0, 0, 1], found.pairs.cosine[1, 1, 2], found.following.cosine[0]]
    assert {f"{n:.2f}".replace("-", "−").replace("0.", ".", 1) for n in numbers} <= told
    assert len(panel.texts) == 4 + 2
    assert [t.get_text() for t in panel.get_xticklabels()] == ["1 | 2", "1 | 4", "2 | 4", "next | later"]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["1", "2"]  # above, no two exits meet


def test_one_panel_a_step() -> None:
    figure = conflict_figure({step: measured(step) for step in (0, 60, 120, 180)})
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert [t for t in titles if t] == ["step 0", "step 60", "step 120", "step 180"]


def test_bars_of_the_owners_are_their_shares() -> None:
    conflicts = {step: measured(step) for step in (0, 60)}
    panels = owners_figure(conflicts).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["step 0", "step 60"]
    for panel, found in zip(panels, conflicts.values(), strict=True):
        widths = np.array([bar.get_width() for bar in panel.patches]).reshape(3, 2)  # exits, layers
        assert pytest.approx(np.nan_to_num(found.owners.norm_share[:2])) == widths.T
        assert widths.sum(axis=0) == pytest.approx([1, 1])
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["1", "2"]


def test_nothing_to_draw() -> None:
    for nothing in ({}, {0: measured(exits=(3,))}):
        with pytest.raises(DataError, match="at least two exits"):
            owners_figure(nothing)
    with pytest.raises(DataError, match="at least two exits"):
        conflict_figure({})
    with pytest.raises(DataError, match="at least two exits"):
        conflict_figure({0: measured(exits=(3,))})
