"""Pictures of faithfulness over size and of overlaps: what is drawn is seen, and nothing is cut."""

from __future__ import annotations

import io
from math import nan

import numpy as np
import pytest
from matplotlib.image import imread

from storage.report.circuit_figures import (
    FaithfulnessLine,
    FaithfulnessPanel,
    Point,
    faithfulness_png,
    matrix_png,
    overlap_png,
)

SHARES = (0.002, 0.01, 0.05, 0.2, 1.0)
BLUE, FRAME = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def pixels(png: bytes) -> np.ndarray:
    """[height width 3], whole numbers from 0 to 255."""
    found: np.ndarray = np.rint(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)
    return found


def is_whole(picture: np.ndarray) -> bool:
    """Whether nothing touches an edge of the picture."""
    ends = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return all(bool((each == 255).all()) for each in ends)


def panel(name: str, values: tuple[float, ...], random: tuple[Point, ...] = ()) -> FaithfulnessPanel:
    points = tuple((share, f, f - 0.05, f + 0.05) for share, f in zip(SHARES, values, strict=True))
    return FaithfulnessPanel(name, (FaithfulnessLine("$eap", points), FaithfulnessLine("exact", points[2:])), random)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows of the picture where a colour stands."""
    return np.flatnonzero((picture == colour).all(axis=2).any(axis=1))


@pytest.mark.parametrize("n_panels", [1, 4])
def test_every_panel_is_drawn_and_nothing_is_cut(n_panels: int) -> None:
    panels = [panel(f"a_behavior_of_a_long_name_{index}", (0.1, 0.4, 0.9, 1.0, 1.0)) for index in range(n_panels)]
    picture = pixels(faithfulness_png(panels, "circuits of $micro-gpt2: faithfulness"))
    assert is_whole(picture)
    inked = np.flatnonzero((picture == BLUE).all(axis=2).any(axis=0))
    assert (np.diff(inked) > 100).sum() >= min(3, n_panels) - 1  # gaps between panels


def test_random_circuits_are_a_grey_band_that_need_not_fit() -> None:
    random = tuple((share, -9.0 if share == 0.05 else 0.1, -10.0, 0.3) for share in SHARES)
    without, beside = (
        pixels(faithfulness_png([panel("ioi", (0.1, 0.4, 0.9, 1.0, 1.0), each)], "f")) for each in ((), random)
    )
    assert without.shape == beside.shape
    grey = np.ptp(beside, axis=2).max(axis=1) < 12
    assert (without != beside).any()
    assert not np.array_equal(where(beside, BLUE), [])
    assert np.array_equal(where(without, BLUE)[[0, -1]], where(beside, BLUE)[[0, -1]])  # the axis follows the lines
    assert grey.any()


def test_circuits_without_edges_and_intervals_are_no_points() -> None:
    points = ((0.0, 0.0, None, None), (0.1, 0.8, None, None), (1.0, 1.0, None, None))
    only = FaithfulnessPanel("ioi", (FaithfulnessLine("eap", points), FaithfulnessLine("none", points[:1])))
    assert is_whole(pixels(faithfulness_png([only], "f")))
    assert faithfulness_png([only], "f") == faithfulness_png(
        [FaithfulnessPanel("ioi", (FaithfulnessLine("eap", points[1:]), FaithfulnessLine("none", ())))], "f"
    )


def test_ceilings_are_framed() -> None:
    matrix, names = [[0.8, 0.2, nan], [0.2, 0.9, 0.1], [nan, 0.1, 0.7]], ["ioi", "$greater_than", "needle"]
    framed, plain = (
        pixels(overlap_png(matrix, names, "overlap")),
        pixels(matrix_png(matrix, (names, names), "overlap", "Jaccard")),
    )
    assert is_whole(framed)
    assert len(where(framed, FRAME)) > 0
    assert len(where(plain, FRAME)) == 0


def test_a_matrix_need_not_be_square_and_may_hold_negative_numbers() -> None:
    picture = pixels(matrix_png([[1.0, -0.4, 0.2]], (["ioi"], ["ioi", "greater_than", "needle"]), "cross", "f"))
    assert is_whole(picture)
    assert len(where(picture, (0xB2, 0x18, 0x2B))) > 0  # the red end of the scale centred at zero
