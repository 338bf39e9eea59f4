"""Patching heads between clean and corrupt prompts: planted circuits and gates, and the slow reference."""

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.primary_readout import primary_readout
from mneme.probe import probes
from mneme.promptset import Promptset
from tests import references
from tests.architectures import tiny
from tests.planted import FIRST_ID, INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, copy_model, save

PATCHING = probes.get("head_patching")
ITEMS, PERIOD, ASKED = 5, 12, 4


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(save(copy_model(), tmp_path_factory.mktemp("planted")))


def bodies():
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(FIRST_ID, generator=generator)[: PERIOD + 2] for _ in range(ITEMS)])


def pairs(changed):
    """[first token] + s + the start of s up to the asked token; in the corrupt copy one token of s is another one."""
    drawn = bodies()
    body, other, absent = drawn[:, :PERIOD], drawn[:, PERIOD], drawn[:, [PERIOD + 1]]
    first = torch.full((ITEMS, 1), FIRST_ID)
    clean = torch.cat([first, body, body[:, : ASKED + 1]], dim=1)
    corrupt = clean.clone()
    corrupt[:, 1 + changed] = other
    ends = torch.full((ITEMS,), clean.shape[1] - 1)
    return Promptset(
        Batch(clean, ends + 1, {"end": ends}),
        corrupt=Batch.of(corrupt),
        correct_ids=body[:, [ASKED + 1]],
        wrong_ids=absent,
    )


def expected(*heads):
    effects = torch.zeros(2, 4)
    for layer, head in heads:
        effects[layer, head] = 1
    return effects


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_head_that_reads_the_answer_carries_all_of_a_changed_answer(planted, direction):
    found = measure(PATCHING, {"direction": direction}, pairs(ASKED + 1), lm=planted)
    torch.testing.assert_close(found["normalised"], expected(INDUCTION_HEAD), atol=1e-3, rtol=0)
    raw = found["effects"][:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]]
    torch.testing.assert_close(raw, found["gap"], atol=1e-3, rtol=1e-3)
    assert float(found["gap"].min()) > 5


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_two_heads_in_series_carry_all_of_a_broken_match_each(planted, direction):
    found = measure(PATCHING, {"direction": direction}, pairs(ASKED), lm=planted)
    series = expected(PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD)
    torch.testing.assert_close(found["normalised"], series, atol=1e-2, rtol=0)


def test_at_the_end_only_the_head_that_acts_there_matters(planted):
    found = measure(PATCHING, {"position": "end"}, pairs(ASKED), lm=planted)
    torch.testing.assert_close(found["normalised"], expected(INDUCTION_HEAD), atol=1e-3, rtol=0)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_effects_equal_one_full_forward_per_head(direction):
    lm = LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu")
    prompts = decisive(lm)
    found = measure(PATCHING, {"direction": direction}, prompts, lm=lm)
    readout, both = primary_readout(prompts), (prompts.clean, prompts.corrupt)
    clean, corrupt = (references.read(readout, references.stock_logits(lm, batch), batch) for batch in both)
    base, donor = both if direction == "noise" else both[::-1]
    patched = references.each_head(lm, base, readout, references.all_z(lm, donor))
    by_hand = clean[:, None, None] - patched if direction == "noise" else patched - corrupt[:, None, None]
    torch.testing.assert_close(found["effects"].double(), by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        found["normalised"].double(), by_hand.mean(0) / (clean - corrupt).mean(), atol=1e-5, rtol=0
    )


def decisive(lm):
    """Pairs with the answers that the model moves most from corrupt to clean."""
    clean, corrupt = torch.randint(3, 40, (2, 6, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = lm.hf(clean).logits[:, -1] - lm.hf(corrupt).logits[:, -1]
    answers = {"correct_ids": moved.argmax(1, keepdim=True), "wrong_ids": moved.argmin(1, keepdim=True)}
    return Promptset(Batch.of(clean), corrupt=Batch.of(corrupt), **answers)


@pytest.mark.parametrize("part", ["corrupt", "wrong_ids", "correct_ids"])
def test_prompts_without_pairs_or_answers_do_not_apply(planted, part):
    given = {name: getattr(pairs(ASKED), name) for name in ("clean", "corrupt", "correct_ids", "wrong_ids")}
    with pytest.raises(NotApplicable, match="corrupt" if part == "corrupt" else "answers"):
        measure(PATCHING, {}, Promptset(**{**given, part: None}), lm=planted)


def test_pairs_that_the_model_does_not_tell_apart_do_not_apply(planted):
    told = pairs(ASKED)
    same = Promptset(told.clean, told.clean, told.correct_ids, told.wrong_ids)
    swapped = Promptset(told.corrupt, told.clean, told.correct_ids, told.wrong_ids)
    one_apart = Promptset(
        Batch.of(torch.cat([told.clean.ids[:1], told.corrupt.ids[1:]])), told.corrupt, told.correct_ids, told.wrong_ids
    )
    for prompts in (same, swapped, one_apart):
        with pytest.raises(NotApplicable, match="nothing to patch"):
            measure(PATCHING, {}, prompts, lm=planted)
    with pytest.raises(NotApplicable, match="two prompts"):
        measure(PATCHING, {}, told.select(slice(0, 1)), lm=planted)


@pytest.mark.parametrize(
    ("parameters", "words"), [({"direction": "both"}, "denoise, noise"), ({"position": "name"}, "end")]
)
def test_parameters_that_make_no_sense_are_refused(planted, parameters, words):
    with pytest.raises(BadInput, match=words):
        measure(PATCHING, parameters, pairs(ASKED), lm=planted)


def test_a_stored_trace_is_no_model():
    with pytest.raises(BadInput, match="model"):
        measure(PATCHING, {}, pairs(ASKED), trace={})
