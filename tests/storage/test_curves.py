"""Curves over training, drawn: a panel a measure, a line a seed, t50 on its interval."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from storage.report.curve_figures import curves_png, legend_text
from storage.report.curves import COLOURS, Line, Panel, curves_svg, legend_key, panels, place, step_text, step_ticks


def row(step: int, value: float, **changes: Any) -> dict[str, Any]:
    base = {
        "measure": "induction",
        "probe": "induction",
        "variant": "primary",
        "promptset": "repeated_tokens",
        "promptset_seed": 0,
        "model": "tiny",
        "model_seed": 0,
        "unit": "fraction of attention",
        "ci_low": value - 0.05,
        "ci_high": value + 0.05,
    }
    return base | {"step": step, "value": value} | changes


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [row(step, value, **changes) for step, value in ((0, 0.1), (10, 0.1), (100, 0.9), (1000, 0.9))]


def change(**changes: Any) -> dict[str, Any]:
    return row(0, 0.0, **changes) | {"t50": 30.0, "t50_low": 25.0, "t50_high": 40.0}


def test_a_panel_holds_a_measure_and_a_line_a_seed() -> None:
    found = panels([*rows(), *rows(model_seed=1), *rows(measure="induction_mean")], [change(model_seed=1)])
    assert [(panel.title, [line.name for line in panel.lines]) for panel in found] == [
        ("induction", ["tiny[0]", "tiny[1]"]),
        ("induction_mean", ["tiny[0]"]),
    ]
    first, second = found[0].lines
    assert (first.t50, second.t50, second.t50_low) == (None, 30.0, 25.0)


def test_what_the_training_measured_stands_in_a_panel_of_its_own() -> None:
    about = {"promptset": None, "promptset_seed": None, "probe": None, "variant": "training", "measure": "loss"}
    (panel,) = panels(rows(**about), [change(**about)])
    assert (panel.title, panel.place, panel.lines[0].t50) == ("loss", "while training", 30.0)


def test_seeds_of_one_model_have_colours_and_those_of_several_share_one() -> None:
    (one,) = panels([each for seed in range(8) for each in rows(model_seed=seed)], [])
    assert [line.look for line in one.lines[:2]] == [(0, 0), (1, 0)]
    assert len({line.look for line in one.lines}) == 8
    (several,) = panels([each for model in "ab" for seed in (0, 1) for each in rows(model=model, model_seed=seed)], [])
    assert [line.look for line in several.lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_several_draws_of_prompts_are_told_apart() -> None:
    (panel,) = panels([*rows(), *rows(promptset_seed=1)], [])
    assert [line.name for line in panel.lines] == ["tiny[0] · prompts[0]", "tiny[0] · prompts[1]"]


def test_a_missing_value_leaves_the_line() -> None:
    (panel,) = panels([*rows(), row(5000, 0.0) | {"value": None}], [])
    assert panel.last_step == 1000


@pytest.mark.parametrize(
    ("values", "domain"),
    [((0.1, 0.9), (0.0, 1.0)), ((0.5, 4.13), (0.0, 4.2)), ((-0.31, 0.2), (-0.35, 0.25)), ((0.0, 0.0), (0.0, 1.0))],
)
def test_the_axis_of_values_ends_in_round_numbers(values: tuple[float, float], domain: tuple[float, float]) -> None:
    points = tuple((step, value, None, None) for step, value in enumerate(values))
    found = Panel("t", "p", "u", (Line("a", (0, 0), points, None, None, None),)).domain
    assert found[0] <= min(values)
    assert found[1] >= max(values)
    assert found == pytest.approx(domain, abs=0.05)


def test_t50_lies_on_the_line() -> None:
    line = panels(rows(), [change()])[0].lines[0]
    share = (place(30) - place(10)) / (place(100) - place(10))
    assert line.value_at(30) == pytest.approx(0.1 + share * 0.8)
    assert line.value_at(0) == 0.1
    assert line.value_at(5000) == 0.9


def test_steps_are_marked_by_powers_of_ten() -> None:
    assert step_ticks(1000) == [0, 1, 10, 100, 1000]
    assert step_ticks(999) == [0, 1, 10, 100]
    assert [step_text(step) for step in (0, 10, 1000, 143000, 10**6)] == ["0", "10", "1k", "143k", "1M"]


def test_the_drawing_has_a_line_a_spread_and_a_diamond_to_scale() -> None:
    (panel,) = panels(rows(unit="<b>"), [change()])
    drawn = curves_svg(panel)
    assert [drawn.count(f'class="{name} c0"') for name in ("spread", "curve", "t50")] == [1, 2, 1]
    assert "&lt;b&gt;" in drawn
    x = 44 + (340 - 44 - 10) * place(30) / place(1000)
    found = re.search(r'class="t50 c0" d="M([\d.]+)', drawn)
    assert found is not None
    assert float(found[1]) == pytest.approx(x, abs=0.1)
    without = curves_svg(panels(rows(ci_low=None), [])[0])
    assert "spread" not in without
    assert "t50" not in without
    assert 'class="curve c0"' in legend_key(panel.lines[0])


def test_the_legend_says_when_with_the_interval() -> None:
    line = panels(rows(), [change()])[0].lines[0]
    assert legend_text(line) == "tiny[0]: t50 at step 30 [25, 40]"
    assert legend_text(panels(rows(), [])[0].lines[0]) == "tiny[0]"


@pytest.mark.parametrize("n_seeds", [1, 20])
def test_the_picture_shows_the_lines_in_their_colours(n_seeds: int) -> None:
    drawn = panels([each for seed in range(n_seeds) for each in rows(model_seed=seed, unit="$x")], [change()])
    png = curves_png(drawn * 2, "study: $over training")
    picture = np.rint(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)
    last = drawn[0].lines[-1].look[0]
    assert (picture == [int(COLOURS[last][i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).any()
    assert not (picture[:, -1] != 255).any()
