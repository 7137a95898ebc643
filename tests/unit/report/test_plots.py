"""Plots show the given numbers, and use only glyphs that their font has."""

from __future__ import annotations

import doctest
import re
import warnings

import numpy as np
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.report import blocks, comparison, run_reader, style
from compass_ray.report.drift_summary import build_timelines
from compass_ray.report.plots import (
    MOST_SOURCES,
    furthest_clusters,
    loss_range,
    plot_divergence,
    plot_divergences,
    plot_gap,
    plot_training,
    source_matrix,
)
from compass_ray.report.run_reader import RunReader


@pytest.mark.parametrize("module", [blocks, comparison, run_reader, style])
def test_examples_in_docstrings_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0


def test_divergence_picture_draws_every_check_and_its_threshold(run: RunDir) -> None:
    timeline = build_timelines(RunReader(run))[0]
    axes = plot_divergence(timeline).axes[0]
    drawn = np.asarray(axes.lines[0].get_xydata())
    assert drawn.tolist() == [[c.prompts, c.divergence] for c in timeline.checks]
    assert {float(y) for y in np.asarray(axes.lines[1].get_ydata())} == {0.1}
    assert [text.get_text().strip() for text in axes.texts] == ["drift alarm", "promotion v0002"]


def test_divergences_of_methods_are_drawn_by_language_the_largest_first() -> None:
    before, after = {"sw": 0.2, "hi": 0.4, "am": 0.3}, {"random": {"sw": 0.25, "am": 0.28}, "compass": {"hi": 0.1}}
    axes = plot_divergences(before, after, style.METHOD_STYLES, "Divergence").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Hindi (hi)", "Amharic (am)", "Swahili (sw)"]
    drawn = {str(each.get_label()): np.asarray(each.get_offsets()).tolist() for each in axes.collections}
    assert drawn == {
        "rows before": [[0.4, 0], [0.3, 1], [0.2, 2]],
        "random": [[0.28, 1], [0.25, 2]],
        "COMPASS": [[0.1, 0]],
    }


def test_training_picture_draws_every_adapter(run: RunDir) -> None:
    histories = RunReader(run).histories("sw")
    axes = plot_training("sw", histories, "compass").axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:4] == ["v0001 COMPASS", "v0002 COMPASS", "target", "random"]


def test_heat_map_keeps_every_row_when_sources_are_many() -> None:
    counts = {"sw": {f"x{i:02d}": i + 1 for i in range(40)}, "hi": {"sw": 7}}
    codes, rows = source_matrix(counts)
    assert len(codes) == MOST_SOURCES + 1
    assert codes[-1] == ""
    assert rows.sum(axis=1).tolist() == [sum(range(1, 41)), 7]


def test_furthest_clusters_have_the_largest_gaps_and_are_ordered_by_gap(run: RunDir) -> None:
    made = RunReader(run).allocation("compass", "sw")
    assert made is not None
    lack = made.gap.p_eval - made.gap.p_before
    indices = furthest_clusters(made, 5)
    assert [lack[i] for i in indices] == sorted((lack[i] for i in indices), reverse=True)
    assert int(np.argmax(np.abs(lack[:-1]))) in indices


def test_plots_use_no_missing_glyph(run: RunDir) -> None:
    found = RunReader(run)
    made = found.allocation("compass", "sw")
    assert made is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert style.to_png(plot_gap(made, found.sweep("sw"))).startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["ገንዘብ", "वित्त", "a\nb", "", None])
def test_label_falls_back_on_text_the_font_cannot_draw(text: str | None) -> None:
    assert style.printable_label(text, "cluster 6") == "cluster 6"


def test_methods_differ_without_colour() -> None:
    markers = [each.marker for each in (*style.METHOD_STYLES.values(), style.UPDATED_STYLE, style.OTHER_STYLE)]
    assert len(set(markers)) == len(markers)


def _luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("colour", [*(each.colour for each in style.METHOD_STYLES.values()), style.UPDATED_STYLE.colour])
def test_colours_have_contrast_on_the_light_and_on_the_dark_page(colour: str) -> None:
    assert 1.05 / (_luminance(colour) + 0.05) >= 3.0
    assert (_luminance(style.DARK[colour]) + 0.05) / (_luminance(style.DARK["#ffffff"]) + 0.05) >= 3.0


def test_axes_are_common_to_all_languages(run: RunDir) -> None:
    found = RunReader(run)
    histories = {code: found.histories(code) for code in ("sw", "am")}
    limits = loss_range(histories)
    assert limits is not None
    drawn = [plot_training(code, each, "compass", limits).axes[0] for code, each in histories.items()]
    assert {axes.get_ylim() for axes in drawn} == {limits}
    losses = [e.train_loss for by in histories.values() for h in by.values() for e in h.epochs if e.train_loss is not None]
    assert limits[0] < min(losses)
    assert limits[1] > max(losses)


def test_svg_text_is_escaped_and_ids_differ_between_figures(run: RunDir) -> None:
    figure, axes = style.new_figure(3, 2)
    axes.set_title("<script>x</script> & <b>")
    axes.plot([1, 2], marker="o")
    one, two = (style.inline_svg(style.to_svg(figure, name), name, 'a "quote" <i>') for name in ("one.svg", "two.svg"))
    assert "<script" not in one
    assert "&lt;script&gt;" in one
    assert 'aria-label="a &#34;quote&#34; &lt;i&gt;"' in one
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"', one)) | set(re.findall(r"url\(#([^)]+)\)", one)) <= ids[0]
