"""The retrieval score: a planted copy model, the slow reference, and runs and layers that do not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.encoding import padded
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.planted import FIRST_ID, INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, copy_model, knowing_copy_model, save

SCORE = probes.get("retrieval_score")
N_NEEDLE = 10


def prompts_of(rows: list[list[int]], first: list[int], last: list[int], **more: object) -> Promptset:
    labels = {"value_first": torch.tensor(first), "value": torch.tensor(last)}
    return Promptset(padded(rows, labels), **more)


def scores(lm: LanguageModel, prompts: Promptset, **parameters: object) -> Tensor:
    return measure(SCORE, parameters, prompts, lm=lm)["scores"]


@pytest.fixture(scope="module")
def copying(tmp_path_factory) -> LanguageModel:
    return load_model(save(copy_model(), tmp_path_factory.mktemp("copying")))


@pytest.fixture(scope="module")
def hidden_needles() -> Promptset:
    """First token, filler, trigger, a needle of ten distinct tokens, filler, trigger: all tokens but it distinct."""
    rows = []
    for seed in range(3):
        order = torch.randperm(FIRST_ID, generator=torch.Generator().manual_seed(seed)).tolist()
        trigger, at = order[60], 20 + seed
        rows.append([FIRST_ID, *order[:at], trigger, *order[at:38], trigger])
    first = [22 + seed for seed in range(3)]
    return prompts_of(rows, first, [at + N_NEEDLE - 1 for at in first])


@pytest.mark.parametrize("decoding", ["forced", "greedy"])
@pytest.mark.parametrize("count", ["places", "steps"])
def test_the_planted_induction_head_copies_the_whole_needle_and_the_head_below_it_nothing(
    copying: LanguageModel, hidden_needles: Promptset, decoding: str, count: str
) -> None:
    found = scores(copying, hidden_needles, decoding=decoding, count=count, n_steps=12, least_recall=0.5)
    expected = torch.zeros(3, 2, 4)
    expected[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]] = 1.0
    assert torch.equal(found, expected)
    assert float(found[:, PREVIOUS_TOKEN_HEAD[0], PREVIOUS_TOKEN_HEAD[1]].max()) == 0.0


def test_a_run_that_says_half_of_the_needle_or_less_is_not_kept(
    copying: LanguageModel, hidden_needles: Promptset
) -> None:
    head = (slice(None), *INDUCTION_HEAD)
    short = scores(copying, hidden_needles, decoding="greedy", n_steps=5, least_recall=0.5)
    assert torch.isnan(short).all()  # five of ten
    more = scores(copying, hidden_needles, decoding="greedy", n_steps=6, least_recall=0.5)
    assert torch.equal(more[head], torch.full((3,), 0.6))
    every = scores(copying, hidden_needles, decoding="greedy", n_steps=5)
    assert torch.equal(every[head], torch.full((3,), 0.5))


def test_a_head_that_copies_part_of_a_needle_is_active_in_that_prompt(
    copying: LanguageModel, hidden_needles: Promptset
) -> None:
    found = scores(copying, hidden_needles, decoding="greedy", n_steps=3, count="any")  # three of ten tokens
    expected = torch.zeros(3, 2, 4)
    expected[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]] = 1.0
    assert torch.equal(found, expected)


def test_a_needle_beyond_the_sliding_window_has_no_score_in_that_layer_instead_of_0() -> None:
    lm = LanguageModel(tiny("mistral"), "mistral", None, "cpu")
    window = next(each for each in lm.windows if each is not None)
    row = list(range(3, 3 + window + 4))
    far, near = prompts_of([row], [1], [2]), prompts_of([row], [len(row) - 2], [len(row) - 2])
    is_narrow = torch.tensor([each is not None for each in lm.windows])
    assert torch.equal(scores(lm, far).isnan().all(dim=2)[0], is_narrow)
    assert not scores(lm, near).isnan().any()


def test_forced_runs_whose_needle_the_model_does_not_predict_are_not_kept(copying: LanguageModel) -> None:
    body = torch.arange(1, 30).tolist()
    prompts = prompts_of([[FIRST_ID, *body, 120]], [5], [5])  # the last token occurs nowhere before
    assert torch.isnan(scores(copying, prompts, least_recall=0.5)).all()
    assert torch.isfinite(scores(copying, prompts)).all()


def test_one_position_late_is_no_copy_unless_the_shift_counts(copying: LanguageModel) -> None:
    rows = [[FIRST_ID, 3, 4, 5, 6, 7, 8, 9, 4]]  # after 4 the head looks at 5
    head = (0, *INDUCTION_HEAD)
    at_value, before = prompts_of(rows, [3], [3]), prompts_of(rows, [2], [2])
    assert float(scores(copying, at_value)[head]) == 1.0
    assert float(scores(copying, before)[head]) == 0.0
    assert float(scores(copying, before, shift=1)[head]) == 1.0


RANDOM = torch.randint(3, 40, (4, 14), generator=torch.Generator().manual_seed(5)).tolist()
ROWS = [RANDOM[0], RANDOM[0][:9] + RANDOM[1][:3], RANDOM[2][:11], RANDOM[3]]
FIRST, LAST = [9, 2, 6, 1], [11, 4, 6, 3]


def eager(lm: LanguageModel, row: list[int]) -> tuple[list[Tensor], Tensor]:
    """Attention of every layer [head query key], and logits [position vocab], by the stock eager forward."""
    lm.hf.set_attn_implementation("eager")
    output = lm.hf(torch.tensor([row]), use_cache=False, output_attentions=True)
    lm.hf.set_attn_implementation("mneme")
    return [each[0].double() for each in output.attentions], output.logits[0]


def slow(lm: LanguageModel, item: int, n_steps: int | None) -> Tensor:
    """One whole forward a step; n_steps None = the needle itself is said. [layer head], NaN out of the window."""
    row, needle = ROWS[item], ROWS[item][FIRST[item] : LAST[item] + 1]
    places = [[set() for _ in range(lm.n_heads)] for _ in range(lm.n_layers)]
    said: list[int] = []
    for step in range(len(needle) if n_steps is None else n_steps):
        attention, logits = eager(lm, [*row, *said])
        token = needle[step] if n_steps is None else int(logits[-1].argmax())
        for layer, rows in enumerate(attention):
            for head in range(lm.n_heads):
                key = int(rows[head, -1].argmax())
                if FIRST[item] <= key <= LAST[item] and row[key] == token:
                    places[layer][head].add(key)
        said.append(token)
    found = torch.tensor([[len(each) / len(needle) for each in layer] for layer in places])
    for layer, window in enumerate(lm.windows):
        if window is not None and FIRST[item] <= len(row) + len(needle) - 2 - window:
            found[layer] = torch.nan
    return found


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "mistral", "gemma2"])
@pytest.mark.parametrize("n_steps", [None, 6])
def test_scores_equal_those_of_whole_eager_forwards(name: str, n_steps: int | None) -> None:
    lm = LanguageModel(tiny(name, torch.float64), name, None, "cpu")
    options = {} if n_steps is None else {"decoding": "greedy", "n_steps": n_steps}
    found = scores(lm, prompts_of(ROWS, FIRST, LAST), **options)
    expected = torch.stack([slow(lm, item, n_steps) for item in range(len(ROWS))])
    torch.testing.assert_close(found, expected.float(), equal_nan=True)
    assert torch.isnan(found).any() == any(window is not None for window in lm.windows)


def test_the_random_span_lies_outside_the_needle_and_is_the_prompts_own() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    prompts = prompts_of(ROWS, FIRST, LAST)
    found = scores(lm, prompts, span="random")
    alone = torch.cat([scores(lm, prompts.select(slice(item, item + 1)), span="random") for item in range(4)])
    assert torch.equal(found, alone)
    short = prompts_of([[1, 5, 6, 7, 8]], [1], [3])  # no three tokens outside
    assert torch.isnan(scores(lm, short, span="random")).all()


def test_a_head_that_looks_anywhere_alike_hits_a_random_span_as_often_as_chance() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 40, size=30).tolist() for _ in range(300)]
    prompts = prompts_of(rows, [4] * 300, [4] * 300)
    assert float(scores(lm, prompts, span="random").mean()) == pytest.approx(1 / 30, abs=0.012)


def test_corrupt_prompts_are_run_with_the_clean_needle(copying: LanguageModel) -> None:
    clean, corrupt = [FIRST_ID, 3, 4, 5, 6, 7, 8, 9, 4], [FIRST_ID, 3, 4, 5, 6, 7, 8, 9, 7]
    prompts = prompts_of([clean], [3], [3], corrupt=Batch.of(torch.tensor([corrupt])))
    head = (0, *INDUCTION_HEAD)
    assert float(scores(copying, prompts)[head]) == 1.0
    assert float(scores(copying, prompts, side="corrupt")[head]) == 0.0


def test_a_label_for_the_last_token_alone_is_a_needle_of_one_token(copying: LanguageModel) -> None:
    batch = padded([[FIRST_ID, 3, 4, 5, 6, 4]], {"value": torch.tensor([3])})
    assert float(scores(copying, Promptset(batch))[(0, *INDUCTION_HEAD)]) == 1.0


BODY = list(range(60, 80))
ASKED = [
    [FIRST_ID, 9, 3, 4, 5, *BODY, 9, 3],
    [FIRST_ID, 9, 6, 7, 8, *BODY, 9, 6],
    [FIRST_ID, 9, 10, 11, 12, *BODY, 9, 10],
]


def asked(question: list[int] | None = None, **more: object) -> Promptset:
    """Needles of two tokens after 3, 6 and 10; the question is the last two tokens: 9 and one of them."""
    labels = {"value_first": torch.tensor([3] * 3), "value": torch.tensor([4] * 3)}
    if question is not None:
        labels["question_first"] = torch.tensor(question)
    return Promptset(padded(ASKED, labels), facts={"offset": 1}, **more)


@pytest.mark.parametrize("decoding", ["forced", "greedy"])
@pytest.mark.parametrize("span", ["needle", "random"])
def test_a_needle_that_the_model_knows_whole_without_its_context_is_left_out(
    tmp_path, decoding: str, span: str
) -> None:
    knowing = load_model(save(knowing_copy_model({3: 4, 4: 5, 6: 7}), tmp_path))  # all of a needle, and half of one
    options = {"decoding": decoding, "n_steps": 2, "least_recall": 0.5, "span": span}
    found = scores(knowing, asked([25] * 3), **options)
    assert torch.isnan(found[0]).all()
    assert torch.isfinite(found[1:]).all()
    unnamed = scores(knowing, asked(), **options)  # nobody says where the question begins
    assert torch.isfinite(unnamed).all()
    assert torch.equal(found[1:], unnamed[1:])
    if span == "needle":
        assert torch.equal(unnamed[(slice(None), *INDUCTION_HEAD)], torch.ones(3))


def test_what_is_known_closed_book_leaves_corrupt_prompts_too(tmp_path) -> None:
    knowing = load_model(save(knowing_copy_model({3: 4, 4: 5}), tmp_path))
    corrupt = Batch.of(torch.tensor([[*row[:-1], 50] for row in ASKED]))
    found = scores(knowing, asked([25] * 3, corrupt=corrupt), side="corrupt")
    assert torch.isnan(found[0]).all()
    assert torch.isfinite(found[1:]).all()


@pytest.mark.parametrize("question", [4, 3, 1])
def test_a_needle_in_its_question_or_behind_it_is_refused(copying: LanguageModel, question: int) -> None:
    with pytest.raises(BadInput, match="the needle of prompt 1 ends at 'value', in the question"):
        scores(copying, asked([25, question, 25]))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"decoding": "beam"}, "retrieval_score.decoding is 'beam': choose one of forced, greedy"),
        ({"count": "hits"}, "choose one of places, steps"),
        ({"span": "all"}, "choose one of needle, random"),
        ({"side": "both"}, "choose one of clean, corrupt"),
        ({"shift": -1}, "retrieval_score.shift is -1"),
        ({"least_recall": 1.5}, "retrieval_score.least_recall is 1.5"),
        ({"decoding": "greedy", "n_steps": 0}, "retrieval_score.n_steps is 0"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused(copying: LanguageModel, parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        scores(copying, prompts_of([[FIRST_ID, 3, 4, 5, 6, 4]], [3], [3]), **parameters)


def test_prompts_without_a_needle_without_pairs_and_too_long_ones_are_refused(copying: LanguageModel) -> None:
    with pytest.raises(NotApplicable, match="label 'value'"):
        scores(copying, Promptset(padded([[FIRST_ID, 3, 4]])))
    with pytest.raises(NotApplicable, match="needs pairs"):
        scores(copying, prompts_of([[FIRST_ID, 3, 4]], [1], [1]), side="corrupt")
    long = prompts_of([[FIRST_ID, *range(1, 127)]], [1], [9])
    with pytest.raises(BadInput, match="exceed the 128 of"):
        scores(copying, long)
