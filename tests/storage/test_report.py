"""The page of a study stands alone, shows what the views hold, and trusts no text that came from outside."""

from __future__ import annotations

import io
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mneme.errors import BadInput
from storage.home import Home
from storage.lake import Lake
from storage.reader import query
from storage.report.colours import DIVERGING, SEQUENTIAL, Scale, scale_of
from storage.report.drawings import decimals_for, heat_map, interval, number
from storage.report.figures import heat_map_png, ink_on, two_digits, two_lines
from storage.report.page import write_report
from storage.warehouse import publish
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial, fill

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Notes attributes, ids and tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        facts = dict(attributes)
        self.links += [str(facts[name]) for name in ("href", "src") if name in facts]
        self.ids += [str(facts["id"])] if "id" in facts else []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    fill(home)
    publish(home)
    return home


@pytest.fixture(scope="module")
def page(home: Home) -> str:
    return write_report(home, "example", home.root / "reports" / "example.html").read_text()


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    parsed = Page(page)
    assert all(link.startswith("#") for link in parsed.links)
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert "<script" not in page
    assert not re.search(r"@import|url\((?!#)", page)


def test_every_tag_is_closed_in_its_order(page: str) -> None:
    parsed = Page(page)
    assert (parsed.open, parsed.unbalanced) == ([], [])


def test_every_section_of_a_full_study_is_there(page: str) -> None:
    sections = [
        "claims",
        "behaviors",
        "training",
        "dynamics",
        "phase-changes",
        "roles",
        "circuits",
        "curves",
        "profiles",
        "ranking",
        "maps",
        "effects",
        "behavior",
        "reliability",
    ]
    sections += ["trials", "provenance"]
    assert [each for each in Page(page).ids if each in sections] == sections
    assert page.count('<svg class="heat-map"') == 8 + 2
    assert "url(#missing)" in page


def test_heads_of_a_role_are_counted_by_model(page: str) -> None:
    roles = page.split('<h2 id="roles">')[1].split("</table>", maxsplit=1)[0]
    lines = [re.findall(r"<td.*?>(.*?)</td>", line) for line in roles.split("<tr>")[2:]]
    assert [line[:4] for line in lines] == [
        ["<b>induction</b>", "induction", "0.4", "repeated_tokens[0]"],
        ["<b>previous token</b>", "previous_token", "0.4", "repeated_tokens[0]"],
    ]
    assert all(0 <= int(cell) <= size for line in lines for cell, size in zip(line[4:], (48, 8), strict=True))


def test_errors_are_shown_and_escaped(page: str) -> None:
    assert "the vocabulary of &#39;tiny_gpt2&#39; has 64 &lt;tokens&gt; &amp; no more" in page
    assert "<tokens>" not in page


def test_the_sql_that_is_shown_gives_the_table_that_is_shown(home: Home, page: str) -> None:
    shown = re.findall(r"<pre><code>(.*?)</code></pre>", page, flags=re.S)
    assert len(shown) == 17
    claims = query(home, unescape(shown[0]), "csv").splitlines()
    assert [line.split(",")[0] for line in claims[1:]] == re.findall(r"<td class=\"claim\"><b>(.*?)</b>", page)
    behaviors = query(home, unescape(shown[1]), "csv").splitlines()
    assert len(behaviors) - 1 == page.count("<g><title>") == 2
    ranking = query(home, unescape(shown[10]), "csv").splitlines()
    assert len(ranking) - 1 == page.count('<td class="w head">')
    assert ranking[1].startswith("induction,primary,small_llama,0,repeated_tokens,0,false,1,5,1,0.9,")


def test_the_same_results_make_the_same_page(home: Home, page: str, tmp_path: Path) -> None:
    assert write_report(home, "example", tmp_path / "again.html").read_text() == page


def test_a_page_can_be_limited_to_some_trials(home: Home, tmp_path: Path) -> None:
    chosen = ["t-tiny_gpt2-repeated_tokens-induction", "t-tiny_gpt2-repeated_tokens-entropy"]
    text = write_report(home, "example", tmp_path / "page.html", trial_ids=chosen).read_text()
    assert text.count('<svg class="heat-map"') == 1
    assert (text.count('class="w failed"'), text.count('class="w delivered"')) == (1, 1)


def test_a_trial_at_a_step_of_the_training_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lake = Lake(home.lake)
    deliver_trial(lake, "d1", step=64)
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})
    publish(home)
    assert "tiny[0]@64 · repeated_tokens[0]" in write_report(home, "s", tmp_path / "page.html").read_text()


def test_what_rests_on_fewer_than_thirty_prompts_has_a_star_in_tables_and_above_maps(page: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    lake = Lake(home.lake)
    deliver_trial(lake, "d1")
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5})  # of 20 prompts
    publish(home)
    few = write_report(home, "s", tmp_path / "page.html").read_text()
    star = '<span title="fewer than 30 prompts: descriptive only">*</span>'
    assert (few.count(f"20{star}"), few.count("<figcaption>tiny[0]*</figcaption>")) == (1, 1)
    assert star not in page
    assert "]*</figcaption>" not in page


def test_an_unknown_study_is_refused_with_near_names(home: Home, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="study 'exmple' has no published trials; did you mean 'example'"):
        write_report(home, "exmple", tmp_path / "page.html")


def test_a_study_of_failures_only_has_a_page(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lake = Lake(home.lake)
    deliver_trial(lake, "d1", status="failed", error="out of memory", seconds=None, forwards=None, unit="x")
    deliver_answer(lake, "s", "t1", "d1")
    publish(home)
    text = write_report(home, "s", tmp_path / "page.html").read_text()
    assert "out of memory" in text
    assert 'id="ranking"' not in text


def test_names_from_results_cannot_become_markup(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lake = Lake(home.lake)
    deliver_trial(lake, "d1", model="<img src=x>", unit='"><script>alert(1)</script>', versions='{"<b>": "<i>"}')
    deliver_answer(lake, "s", "t1", "d1")
    deliver_head_scores(lake, "d1", {(0, 0): 0.5, (0, 1): math.nan})
    publish(home)
    text = write_report(home, "s", tmp_path / "page.html").read_text()
    assert not re.search(r"<script|<img|<b>&lt;|<i>", text)
    assert Page(text).unbalanced == []


@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        ([0.2, 0.4], (0.0, 1.0), (0.0, 1.0, False)),
        ([0.2, 0.4], (None, None), (0.0, 1.0, False)),
        ([0.5, 7.0], (0.0, None), (0.0, 7.0, False)),
        ([-0.5, 0.25, math.nan], (None, None), (-0.5, 0.5, True)),
        ([math.nan], (None, None), (0.0, 1.0, False)),
    ],
)
def test_the_scale_fits_the_numbers(
    values: list[float], bounds: tuple[float | None, float | None], expected: tuple[float, float, bool]
) -> None:
    scale = scale_of(values, bounds)
    assert (scale.low, scale.high, scale.is_centred) == expected


def test_the_ends_and_the_middle_have_their_colours() -> None:
    scores, effects = scale_of([0.5]), scale_of([-2.0, 1.0])
    assert (scores.colour(0.0), scores.colour(0.5), scores.colour(1.0)) == SEQUENTIAL[::2]
    assert (effects.colour(-2.0), effects.colour(0.0), effects.colour(2.0)) == DIVERGING[::2]
    assert effects.colour(99.0) == DIVERGING[-1]


def test_a_heat_map_has_a_cell_for_every_head_and_hatches_the_missing() -> None:
    drawn = heat_map([[0.0, 1.0, math.nan], [0.5, 0.5, 0.5]], scale_of([0.0, 1.0]), "fraction")
    assert drawn.count('<rect x="') - 1 == 6  # one is the colour bar
    assert drawn.count("url(#missing)") == 1
    assert "<title>layer 0, head 2: not measurable</title>" in drawn


def test_an_interval_is_drawn_to_scale() -> None:
    drawn = interval(0.5, (0.25, 0.75), (0.0, 1.0), band=(0.0, 0.5))
    assert 'cx="60.0"' in drawn
    assert 'x1="32.0" y1="8" x2="88.0"' in drawn
    assert 'class="band" x="4.0" y="3" width="56.0"' in drawn
    assert interval(None, (None, None), (0.0, 1.0)) == ""


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (None, 3, "–"),
        (math.nan, None, "–"),
        (0.5, 3, "0.500"),
        (-1.25, 2, "−1.25"),
        (12345.6, None, "12,346"),
        (0.00012, None, "0.00012"),
    ],
)
def test_numbers_are_readable(value: float | None, decimals: int | None, text: str) -> None:
    assert number(value, decimals) == text


@pytest.mark.parametrize(
    ("domain", "decimals"), [((0.0, 1.0), 3), ((0.0, 14.3), 1), ((-8.1, 2.0), 2), ((0.0, 0.005), 5), ((0.0, 5e4), 0)]
)
def test_a_column_has_three_digits_of_its_largest_number(domain: tuple[float, float], decimals: int) -> None:
    assert decimals_for(domain) == decimals


@pytest.mark.parametrize("matrix", [[[0.1, math.nan], [0.9, 0.5]], [[-1.0, 2.0]], [[math.nan]], [[0.0] * 32] * 40])
def test_a_heat_map_is_a_png_without_a_display(matrix: list[list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    png = heat_map_png(matrix, title="induction $x", unit="fraction of <attention>")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 1000


def pixels(png: bytes) -> np.ndarray:
    """[height width 3], whole numbers from 0 to 255."""
    return np.rint(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)


@pytest.mark.parametrize("title", ["induction_lm_2l[0] / repeated_tokens_shuffled[0] / head_ablation[zero]", "x" * 90])
@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (12, 2)])
def test_a_long_title_stays_inside_the_picture_and_off_the_map(title: str, shape: tuple[int, int]) -> None:
    matrix = [[0.5] * shape[1]] * shape[0]
    picture = pixels(heat_map_png(matrix, title, "fraction of attention"))
    inked = (picture != 255).any(axis=2)
    assert not inked[:, -1].any()
    first_colour = np.flatnonzero((np.ptp(picture, axis=2) > 60).any(axis=1))[0]
    gap = np.flatnonzero(~inked[:first_colour].any(axis=1))[-1]
    assert inked[:gap].any(axis=1).sum() > 8  # the title
    assert first_colour - gap < 10  # frame lines and the upper half of a label of the colour bar


@pytest.mark.parametrize(("shape", "is_written"), [((12, 16), True), ((13, 16), False), ((12, 17), False)])
def test_cells_bear_their_numbers_in_small_maps_only(shape: tuple[int, int], is_written: bool) -> None:
    cells = pixels(heat_map_png([[1.0] * shape[1]] * shape[0], "t", "u", Scale(0.0, 1.0, is_centred=False)))
    left = cells[:, : cells.shape[1] * 3 // 4]  # without the colour bar
    where = np.argwhere((left == (0xFD, 0xE7, 0x25)).all(axis=2))
    (top, start), (bottom, end) = where.min(axis=0), where.max(axis=0)
    inside = left[top + 2 : bottom - 1, start + 2 : end - 1]
    assert (inside.sum(axis=2) < 60).any() == is_written


def test_the_numbers_are_black_on_light_and_white_on_dark_colours() -> None:
    assert (ink_on(1, 1, 1), ink_on(0.99, 0.91, 0.15), ink_on(0, 0, 0), ink_on(0.23, 0.06, 0.36)) == (
        "black",
        "black",
        "white",
        "white",
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (0.9, "0.90"),
        (-0.0312, "−0.031"),
        (12.3, "12"),
        (1234.0, "1.2e3"),
        (-0.00042, "−4.2e-4"),
    ],
)
def test_a_cell_shows_two_digits(value: float, text: str) -> None:
    assert two_digits(value) == text


def test_a_title_is_cut_at_a_slash_into_even_lines() -> None:
    assert two_lines("aaaa / bb / ccccc") == ["aaaa /", "bb / ccccc"]
    assert two_lines("whole") == ["whole"]
