"""Pictures of the page: chosen by what was measured, drawn to scale, as many as a page has room for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from storage.report.charts import Axis, Look, Series, axis_of_places, axis_of_values, chart_svg
from storage.report.claim_picture import claims_svg
from storage.report.line_pictures import curve_pictures, masking_pictures, profile_pictures
from storage.report.map_pictures import grid_pictures, head_pictures
from storage.report.pictures import MOST_PANELS, Looks, Picture, chosen, grouped, looks_of
from tests.storage.rows import comparison_row

LOOKS = Looks({"a": 0, "b": 1, "blank": None})


def trial(**changes: Any) -> dict[str, Any]:
    """What rows of all views begin with."""
    row = {"probe": "p", "variant": "primary", "model": "a", "model_seed": 0, "promptset": "needle"}
    row |= {"promptset_seed": 0, "is_control": False, "unit": "nats", "trial_id": "t", "n_items": 90}
    row |= {"is_descriptive": False}
    return row | changes


def curve(values: list[float | None], **changes: Any) -> list[dict[str, Any]]:
    """Rows of `mart.curves` at 0, 1, 2 ..., each with an interval of 0.2."""
    row = (
        trial(measure="p", x_name="layer", **changes) if "measure" not in changes else trial(x_name="layer", **changes)
    )
    ends = [(None, None) if value is None else (value - 0.1, value + 0.1) for value in values]
    return [
        row | {"x": float(x), "value": value, "ci_low": low, "ci_high": high}
        for x, (value, (low, high)) in enumerate(zip(values, ends, strict=True))
    ]


def curves(*lines: list[dict[str, Any]], level: str = "curve") -> list[Picture]:
    rows = [row for line in lines for row in line]
    return curve_pictures(rows, LOOKS, {row["trial_id"]: level for row in rows})


def test_a_line_runs_through_its_points_from_corner_to_corner() -> None:
    axes = (Axis(0.0, 2.0, False, (0.0, 2.0)), Axis(0.0, 1.0, False, (0.0, 1.0)))
    line = Series("a[0]", Look(3), ((0.0, 0.0, None, None), (1.0, 0.5, None, None), (2.0, 1.0, None, None)))
    drawn = chart_svg("t", [line], axes, ("layer", "rate"))
    points = re.findall(r'class="curve c3" d="M(.*?)"', drawn)[0].split("L")
    (left, bottom), (x, y), (right, top) = (map(float, point.split()) for point in points)
    assert (x, y) == (pytest.approx((left + right) / 2, abs=0.1), pytest.approx((bottom + top) / 2, abs=0.1))
    assert (left < right, top < bottom) == (True, True)
    assert "spread" not in drawn  # no interval, no shade


def test_an_axis_is_logarithmic_where_places_span_a_wide_range_above_zero() -> None:
    assert axis_of_places([1, 2, 4, 64]).is_log
    assert not axis_of_places([0, 2, 64]).is_log
    assert not axis_of_places([4, 8, 32]).is_log
    assert axis_of_places([1, 8, 64]).share(8) == pytest.approx(0.5)


def test_the_axis_of_values_fits_rates_ranks_and_differences() -> None:
    rates, ranks, differences = (
        axis_of_values([0.3, 0.9], "fraction"),
        axis_of_values([1.0, 420.0], "rank"),
        axis_of_values([-0.31, 1.18], "nats"),
    )
    assert (rates.low, rates.high) == (0.0, 1.0)
    assert (ranks.low, ranks.high, ranks.is_log) == (1.0, 1000.0, True)
    assert (differences.low, differences.high) == pytest.approx((-0.4, 1.2))
    assert 0.0 in differences.marks


def test_a_probe_has_one_picture_an_axis_with_a_panel_a_promptset() -> None:
    (drawn,) = curves(curve([0.1, 0.9]), curve([0.2, 0.8], model="b"), curve([0.5, 0.6], promptset="facts"))
    assert (drawn.kind, drawn.title, [label for label, _ in drawn.panels]) == (
        "curves",
        "p by layer",
        ["facts", "needle"],
    )
    assert [svg.count('class="curve c') for _, svg in drawn.panels] == [1, 2]
    assert [name for _, name in drawn.legend] == ["a", "b"]


def test_a_panel_with_a_point_of_fewer_than_thirty_prompts_has_a_star() -> None:
    few = curve([0.1, 0.9], promptset="facts")
    few[1] |= {"n_items": 29, "is_descriptive": True}
    (drawn,) = curves(curve([0.1, 0.9]), few)
    assert sorted(label for label, _ in drawn.panels) == ["facts*", "needle"]


def test_controls_and_untrained_models_are_dashed_and_stand_beside_what_they_control() -> None:
    (drawn,) = curves(
        curve([0.1, 0.9], measure="rate"),
        curve([0.1, 0.2], measure="control_rate"),
        curve([0.1, 0.1], measure="rate", model="blank"),
    )
    ((label, svg),) = drawn.panels
    assert label == "rate · needle"
    assert (svg.count("stroke-dasharray"), svg.count('class="curve c')) == (2, 3)
    assert 'class="curve cx" stroke-dasharray' in svg
    assert drawn.legend[-1][1] == "dashed: control"


def test_a_measure_that_begins_like_a_control_but_controls_nothing_has_a_panel_of_its_own() -> None:
    (drawn,) = curves(curve([0.1, 0.9], measure="random_set_to_zero"))
    assert [label for label, _ in drawn.panels] == ["random_set_to_zero · needle"]


def test_missing_points_single_points_and_places_make_no_line() -> None:
    assert curves(curve([0.5])) == []
    assert curves(curve([0.5, None])) == []
    assert curves(curve([3.0, 4.0], unit="layer")) == []
    (drawn,) = curves(curve([0.1, None, 0.9]))
    assert len(re.findall(r'class="curve c0" d="M(.*?)"', drawn.panels[0][1])[0].split("L")) == 2


def test_masking_shows_each_models_effect_beside_its_random_heads() -> None:
    rows = [
        trial(
            k=k,
            value=0.1 * k,
            ci_low=0.0,
            ci_high=0.2,
            control_mean=0.01,
            control_low=-0.1,
            control_high=0.1,
            model=model,
        )
        for model in ("a", "b")
        for k in (1, 2, 4)
    ]
    (drawn,) = masking_pictures(rows, LOOKS)
    assert [label for label, _ in drawn.panels] == ["a · needle", "b · needle"]
    assert all(svg.count('class="curve c') == 2 and svg.count('class="spread') == 2 for _, svg in drawn.panels)
    without = [row | {"control_mean": None, "control_low": None, "control_high": None} for row in rows[:3]]
    assert masking_pictures(without, LOOKS)[0].panels[0][1].count('class="curve c') == 1


def test_heads_stand_in_falling_order_whatever_their_place() -> None:
    scores = [0.2, 0.9, 0.1, 0.5]
    rows = [trial(layer=0, head=head, score=score) for head, score in enumerate(scores)]
    (drawn,) = profile_pictures(rows, LOOKS)
    heights = [
        float(point.split()[1]) for point in re.findall(r'd="M([\d. L]*)"><title>a', drawn.panels[0][1])[0].split("L")
    ]
    assert heights == sorted(heights)  # downwards on the page
    assert len(heights) == 4


def test_what_the_weights_alone_say_is_drawn_once() -> None:
    rows = [
        trial(layer=0, head=head, score=0.5, n_items=None, promptset=promptset, trial_id=promptset)
        for promptset in ("ioi", "needle")
        for head in range(3)
    ]
    (profile,), (heads,) = profile_pictures(rows, LOOKS), head_pictures(rows, {"ioi": (0, 1), "needle": (0, 1)})
    assert [label for label, _ in profile.panels] == ["weights"]
    assert (heads.title, len(heads.panels)) == ("p · weights", 1)


def grid_row(x: float, y: float, value: float, **changes: Any) -> dict[str, Any]:
    return trial(x_name="length", y_name="depth", x=x, y=y, value=value, low=0.0, high=1.0, **changes)


def test_a_grid_has_a_map_a_model_and_a_cell_for_every_pair_of_values() -> None:
    rows = [grid_row(x, y, x * y / 4) for x in range(3) for y in range(3) if (x, y) != (2, 2)]
    (drawn,) = grid_pictures(rows + [row | {"model": "b"} for row in rows])
    assert drawn.title == "p by length and depth · needle"
    assert [label for label, _ in drawn.panels] == ["a[0]", "b[0]"]
    svg = drawn.panels[0][1]
    assert svg.count("<rect") == 9
    assert svg.count("url(#missing)") == 1
    assert "<title>length 2, depth 1: 0.500, n 90</title>" in svg


def test_two_values_or_mostly_empty_cells_are_no_grid() -> None:
    assert grid_pictures([grid_row(x, y, 0.5) for x in range(2) for y in range(5)]) == []
    assert grid_pictures([grid_row(x, x, 0.5) for x in range(5)]) == []


def made(kind: str, title: str, *rank: Any) -> Picture:
    return Picture(kind, title, (), (), 0, rank or (title,))


def test_parts_and_kinds_take_turns_until_the_page_is_full() -> None:
    one = [made("curves", f"c{each}") for each in range(4)] + [made("maps", f"m{each}") for each in range(4)]
    two = [made("maps", "only")]
    kept, left = chosen([one, two], most=5)
    assert [each.title for each in kept[0]] == ["c0", "c1", "m0", "c2"]
    assert [each.title for each in kept[1]] == ["only"]
    assert left == [["c3", "m1", "m2", "m3"], []]


def test_primary_variants_go_before_the_others_and_axes_of_probes_before_conditions() -> None:
    (variant,), (by_condition,) = curves(curve([0.1, 0.2], variant="a")), curves(curve([0.1, 0.2]), level="behavior")
    (primary,) = curves(curve([0.1, 0.2]))
    assert sorted([variant, by_condition, primary], key=lambda each: each.rank) == [primary, by_condition, variant]


def test_a_picture_says_how_many_panels_it_leaves_out() -> None:
    (drawn,) = curves(*(curve([0.1, 0.2], promptset=f"p{each:02}") for each in range(MOST_PANELS + 3)))
    assert (len(drawn.panels), drawn.n_more) == (MOST_PANELS, 3)


def test_a_model_has_one_colour_and_baselines_have_none() -> None:
    found = looks_of(
        [
            {"model": "b", "baseline": None},
            {"model": "blank", "baseline": "untrained"},
            {"model": "a", "baseline": None},
        ]
    )
    assert (found.of("a"), found.of("b")) == (Look(0), Look(1))
    assert found.of("blank") == Look(None, is_dashed=True)
    assert found.of("a", is_control=True) == Look(0, is_dashed=True)


def test_missing_keys_are_grouped_first() -> None:
    rows = [{"seed": 1, "n": 0}, {"seed": None, "n": 1}, {"seed": 0, "n": 2}, {"seed": None, "n": 3}]
    assert [[row["n"] for row in group] for group in grouped(rows, "seed")] == [[1, 3], [2], [0]]


def test_claims_are_drawn_on_scales_of_their_own_with_zero_in_the_middle() -> None:
    rows = [
        comparison_row("sure", difference=8.0, ci_low=6.0, ci_high=10.0, margin=0.0),
        comparison_row("against", difference=-0.05, ci_low=-0.1, ci_high=0.0, margin=0.0, verdict="does not hold"),
        comparison_row("unknown", difference=None, ci_low=None, ci_high=None, verdict="cannot be tested"),
    ]
    drawn = claims_svg([("part", rows), ("empty", [])])
    sure, against, unknown = drawn.split('<g class="claim">')[1:]
    assert 'class="good" cx="828.0"' in sure  # 8 of 10, 210 pixels to a side of 660
    assert 'class="ends bad" d="M450.0' in against
    assert "circle" not in unknown
    assert drawn.count('class="heading"') == 1
    assert "unknown: – [–, –]" in unknown
