"""The table of behaviors, drawn: a mark for each seed; its shape says what is learnt, baselines stand beside it."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from storage.report.behavior_figures import behaviors_png
from storage.report.behaviors import axis_svg, behavior_svg, grid, key_svg


def row(promptset: str, model: str, accuracy: float | None = 0.98, **changes: Any) -> dict[str, Any]:
    """A learnt behavior; `changes` replace columns."""
    base = {"promptset": promptset, "promptset_seed": 0, "model": model, "model_seed": 0, "accuracy": accuracy}
    beside = {"ci_low": 0.95, "ci_high": 0.99, "chance": 0.25, "best_baseline": 0.3, "is_learnt": True}
    return base | beside | changes


def drawn(*rows: dict[str, Any]) -> str:
    found = grid(rows)
    behavior, model = found.behaviors[0], found.models[0]
    return behavior_svg(behavior, model, found.of(behavior, model))


def test_behaviors_are_rows_models_columns_and_seeds_marks() -> None:
    found = grid([row("ioi", "a"), row("ioi", "a", model_seed=1), row("ioi", "b"), row("needle", "b")])
    assert (found.behaviors, found.models) == (("ioi", "needle"), ("a", "b"))
    assert [mark.seed for mark in found.of("ioi", "a")] == [0, 1]
    assert found.of("needle", "a") == ()
    assert "–" in behavior_svg("needle", "a", ())


def test_several_draws_of_a_promptset_are_rows_of_their_own() -> None:
    assert grid([row("ioi", "a"), row("ioi", "a", promptset_seed=1)]).behaviors == ("ioi[0]", "ioi[1]")


@pytest.mark.parametrize(
    ("is_learnt", "shape", "said"),
    [
        (True, '<circle class="learnt"', "learnt"),
        (False, '<circle class="open"', "not"),
        (None, '<path class="open"', "?"),
    ],
)
def test_shape_filling_and_words_say_what_is_learnt(is_learnt: bool | None, shape: str, said: str) -> None:
    drawing = drawn(row("ioi", "a", is_learnt=is_learnt))
    assert drawing.count(shape) == 1
    assert f">0.98 {said}</text>" in drawing
    shapes = ('<circle class="learnt"', '<circle class="open"', '<path class="open"')
    assert [drawing.count(each) for each in shapes if each != shape] == [0, 0]


def test_marks_stand_to_scale() -> None:
    drawing = drawn(row("ioi", "a", 0.5, ci_low=0.25, ci_high=1.0, chance=0.0, is_learnt=False))
    assert 'cx="47.0" cy="12"' in drawing
    assert 'class="ends" d="M26.5 12H88.0"' in drawing
    assert 'class="chance" d="M6.0 6V18"' in drawing
    assert 'class="threshold" d="M79.8 0V24"' in drawing
    assert re.findall(r"<text x=\"([\d.]+)\"", axis_svg()) == ["6.0", "47.0", "88.0"]


def test_what_is_unknown_is_not_drawn() -> None:
    drawing = drawn(row("ioi", "a", None, ci_low=None, ci_high=None, chance=None, best_baseline=None, is_learnt=None))
    assert [each for each in ("ends", "chance", "baseline", "open") if f'class="{each}"' in drawing] == []
    assert ">– ?</text>" in drawing


def test_names_are_escaped() -> None:
    drawing = drawn(row("<i>", "<b>"))
    assert "<b>" not in drawing
    assert "&lt;i&gt;: &lt;b&gt;" in drawing


def test_the_legend_knows_every_mark() -> None:
    kinds = ("learnt", "not learnt", "unknown", "interval", "chance", "baseline", "threshold")
    assert len({key_svg(kind) for kind in kinds}) == len(kinds)


def picture(n_behaviors: int, is_learnt: bool) -> np.ndarray:
    """[height width 3], whole numbers from 0 to 255."""
    rows = [
        row(f"a_behavior_of_a_long_name_{index}", model, is_learnt=is_learnt)
        for index in range(n_behaviors)
        for model in ("a", "b")
    ]
    png = behaviors_png(grid(rows), "study: $learnt behaviors")
    pixels: np.ndarray = np.rint(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)
    return pixels


@pytest.mark.parametrize("n_behaviors", [1, 8])
def test_the_picture_fills_the_marks_of_what_is_learnt_and_nothing_is_cut(n_behaviors: int) -> None:
    learnt, other = (picture(n_behaviors, is_learnt) for is_learnt in (True, False))
    for edge in (learnt[0], learnt[-1], learnt[:, 0], learnt[:, -1]):
        assert (edge == 255).all()
    inked = [np.count_nonzero((each == (0x24, 0x5E, 0x8A)).all(axis=2)) for each in (learnt, other)]
    assert inked[0] - inked[1] > 20 * 2 * n_behaviors  # pixels inside a mark, two models
