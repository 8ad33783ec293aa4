from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams

from offramp._core.errors import DataError, OfframpError
from offramp.evaluation import per_exit, robustness, speed_accuracy
from offramp.evaluation.arrow_tables import floats
from offramp.reports.figures import (
    curve_figure,
    depth_figure,
    exits_figure,
    histogram_figure,
    latency_figure,
    mean_curve,
)
from offramp.reports.style import PALETTE, caption, render, save_figure, shown
from tests.evaluation.made_up import LAYERS, model_trace
from tests.reports.made_up_runs import attack_rows


def curve(seed: int, cascade: bool = False, resamples: int = 0):
    trace = model_trace(seed, examples=60, layers=LAYERS, cascade=cascade)
    return speed_accuracy(trace, "confidence", points=12, resamples=resamples)


def axes_of(figure):
    (axes,) = figure.axes
    return axes


def labels_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_have_a_line_a_band_and_marks_each() -> None:
    figure = curve_figure({"EE": [curve(0, resamples=20)], "SWEET": [curve(1, resamples=20)]}, "SST-2")
    axes = axes_of(figure)
    assert axes.get_title(loc="left") == "SST-2"
    assert axes.get_ylabel() == "Accuracy"
    assert labels_of(axes) == ["EE", "SWEET"]
    sweeps = [line for line in axes.lines if len(line.get_xdata()) > 3]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(sweeps) == len(marks) == len(axes.collections) == 2
    assert [line.get_color() for line in sweeps] == list(PALETTE[:2])
    assert len({line.get_marker() for line in marks}) == 2  # told apart without colour too
    assert "Bands: 95 % bootstrap intervals." in figure.get_supxlabel()


def test_a_cascade_that_leaves_the_picture_is_told() -> None:
    figure = curve_figure({"Multi-Model": [curve(0, cascade=True)]})
    assert axes_of(figure).get_xlim() == (0, 1.05)
    end = floats(curve(0, cascade=True).sweep, "score")[-1]
    assert f"Multi-Model goes on to {end:.3f} at cost 1.75." in figure.get_supxlabel()


def test_several_models_become_their_mean_and_range() -> None:
    group = [curve(seed) for seed in range(3)]
    costs, middle, low, high = mean_curve(group)
    assert ((low <= middle) & (middle <= high)).all()
    heights = [np.interp(0.6, floats(c.sweep, "cost"), floats(c.sweep, "score")) for c in group]
    place = int(np.argmin(np.abs(costs - 0.6)))
    assert middle[place] == pytest.approx(np.mean(heights), abs=0.02)
    figure = curve_figure({"SWEET": group})
    assert "range over 3 models" in figure.get_supxlabel()
    assert len(axes_of(figure).lines) == 3


def test_exits_side_by_side() -> None:
    scores = {
        name: per_exit(model_trace(s, layers=LAYERS), resamples=20) for s, name in enumerate(("EE", "SWEET"))
    }
    axes = axes_of(exits_figure(scores, "f1"))
    assert axes.get_ylabel() == "F1"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["layer 1", "layer 2", "layer 4"]
    assert labels_of(axes) == ["EE", "SWEET"]
    left, right = (line.get_xdata() for line in axes.lines)
    assert (np.asarray(left) < np.asarray(right)).all()
    assert np.asarray(axes.lines[1].get_ydata()) == pytest.approx(floats(scores["SWEET"], "score"))


def test_histogram_of_clean_and_attacked() -> None:
    figure = histogram_figure({"clean": [0.5, 0.3, 0.2], "attacked": [0.1, 0.2, 0.7]}, LAYERS, "Leaving")
    axes = axes_of(figure)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([50, 30, 20, 10, 20, 70])
    assert [text.get_text() for text in axes.texts] == ["50", "30", "20", "10", "20", "70"]
    assert labels_of(axes) == ["clean", "attacked"]
    assert axes_of(histogram_figure({"SWEET": [1, 0, 0]}, LAYERS)).get_legend() is None


def test_depth_before_and_after() -> None:
    found = robustness(attack_rows(), LAYERS, resamples=20)
    axes = axes_of(depth_figure({"same-word": found, "random": found}, 4))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["same-word", "random"]
    told = [text.get_text() for text in axes.texts]
    assert told == [f"{found['clean_depth']:.1f}", f"{found['adversarial_depth']:.1f}"] * 2
    assert labels_of(axes) == ["clean", "attacked"]


def test_a_bench_joins_our_engine_under_all_policies_by_cost() -> None:
    spots = {"cut-1": 3.0, "ours-int8": 2.0, "ours-int8-drop-0": 4.0, "ours-int8-drop-0.05": 2.1}
    kinds = dict(zip(spots, ("cut", "ours", "point", "point"), strict=True))
    costs = dict(zip(spots, (0.2, 0.5, 0.9, 0.1), strict=True))
    rows = [
        {"peer": peer, "kind": kinds[peer], "cost": costs[peer], "mean": mean, "score": costs[peer]}
        for peer, mean in spots.items()
    ]
    (axes,) = latency_figure(rows, "accuracy").axes
    (line,) = (line for line in axes.lines if line.get_linestyle() == "-")
    assert line.get_xydata().tolist() == [[2.1, 0.1], [2.0, 0.5], [4.0, 0.9]]
    assert {text.get_text() for text in axes.texts} == {"cut-1", "ours-int8"}, "points have no names"


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_figure(curve_figure({"EE": [curve(0, resamples=20)]}), tmp_path / folder / "curves")
    files = [tmp_path / folder / f"curves.{end}" for end in ("svg", "png") for folder in ("a", "b")]
    svg_a, svg_b, png_a, png_b = (file.read_bytes() for file in files)
    assert svg_a == svg_b
    assert png_a == png_b
    assert b"<dc:date>" not in svg_a
    assert b"matplotlib" not in png_a.lower()


def test_the_users_style_is_left_alone(tmp_path: Path) -> None:
    before = dict(rcParams)
    save_figure(histogram_figure({"a": [1.0]}, [1]), tmp_path / "h")
    assert dict(rcParams) == before


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    label = "cost $5 \\frac{ <b>\n&amp;"
    figure = curve_figure({label: [curve(0)]})
    assert labels_of(axes_of(figure)) == ["cost $5 \\frac{ <b> &amp;"]
    save_figure(figure, tmp_path / "names")
    assert shown("a\u202eb") == "a⟨U+202E⟩b"
    assert len(shown("x" * 100)) == 60
    assert shown("a" * 50 + "b" * 50).endswith("…" + "b" * 29)  # names often differ at their ends


@pytest.mark.parametrize(
    "name", ["_under", "$x$ & $y^2$", "[/quote]", r"\frac{1}{2}", "=1+1", "نص", "a_b", "100 %"]
)
def test_any_name_stands_in_every_legend_and_beside_every_axis(name: str) -> None:
    curves = curve_figure({name: [curve(0)], "other": [curve(1)]}, name)
    assert labels_of(axes_of(curves)) == [name, "other"]
    histogram = histogram_figure({name: [1.0], "other": [1.0]}, [1])
    assert labels_of(axes_of(histogram)) == [name, "other"]
    for figure in (curves, histogram):
        assert b"<svg" in render(figure, "svg")
    axes = curve(0).plot(axes_of(curve_figure({"x": [curve(0)]})), label=name)
    legend = axes.get_legend()
    assert legend is not None
    text = legend.get_texts()[-1]
    assert (text.get_text(), text.get_parse_math()) == (name, False)


def test_characters_that_the_font_lacks_are_written_out() -> None:
    assert shown("中é🎉") == "⟨U+4E2D⟩é⟨U+1F389⟩"
    figure = curve_figure({"中": [curve(0)]}, "文")
    caption(figure, "$x$ 字\n" + "word " * 40)
    assert b"<svg" in render(figure, "svg")  # without a warning about missing glyphs
    assert axes_of(figure).get_title(loc="left") == "⟨U+6587⟩"


def test_nothing_to_draw_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one curve to draw"):
        curve_figure({})
    (tmp_path / "file").write_text("")
    with pytest.raises(OfframpError, match=r"cannot write .*a file stands where a folder is needed"):
        save_figure(histogram_figure({"a": [1.0]}, [1]), tmp_path / "file" / "figure")
