"""Importance of tokens: the order of a planted bag of tokens, and plain definitions on models of several kinds."""

from __future__ import annotations

import pytest
import torch

from mneme.batch import Batch
from mneme.embedding_changes import Embedded
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.promptset import Promptset
from mneme.readouts import logit_difference
from mneme.token_importance import METHODS, token_importance
from tests.architectures import tiny
from tests.planted import FIRST_ID, bag_model

WEIGHTS = torch.zeros(128)
WEIGHTS[:30] = torch.linspace(0.2, 3.0, 30)
BATCH = Batch(torch.randint(3, 40, (3, 10), generator=torch.Generator().manual_seed(0)), torch.tensor([10, 8, 9]))
RIGHT, WRONG = torch.tensor([[3], [8], [5]]), torch.tensor([[4], [9], [6]])
PROMPTS = Promptset(BATCH, correct_ids=RIGHT, wrong_ids=WRONG)
NAMES = ["gpt2", "llama", "gemma2", "gpt_neox", "opt"]


def model_of(name: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    return LanguageModel(tiny(name, dtype), name, None, "cpu")


def plain(lm: LanguageModel, item: int, embeddings: torch.Tensor) -> torch.Tensor:
    """The logit difference of one prompt from its embeddings, by the stock model."""
    logits = lm.hf(inputs_embeds=embeddings[None], use_cache=False).logits[0, -1]
    return logits[RIGHT[item, 0]] - logits[WRONG[item, 0]]


def embeddings_of(lm: LanguageModel, item: int) -> tuple[torch.Tensor, torch.Tensor]:
    module = lm.hf.get_input_embeddings()
    return module(BATCH.ids[item, : BATCH.lengths[item]]), module(torch.arange(lm.vocab_size)).mean(dim=0)


def bag_prompts(n_items: int = 6, n_tokens: int = 12) -> Promptset:
    generator = torch.Generator().manual_seed(1)
    body = torch.stack([torch.randperm(30, generator=generator)[:n_tokens] for _ in range(n_items)])
    ids = torch.cat([torch.full((n_items, 1), FIRST_ID), body], dim=1)
    answers = torch.full((n_items, 1), 100)
    return Promptset(Batch.of(ids), correct_ids=answers, wrong_ids=answers + 1)


@pytest.mark.parametrize("method", ["attention", "leave_one_out"])
def test_in_a_bag_of_tokens_the_heavier_token_matters_more(method: str) -> None:
    lm = LanguageModel(bag_model(WEIGHTS, 100), "bag", None, "cpu")
    prompts = bag_prompts()
    found = token_importance(lm, prompts, method)[:, 1:-1]
    assert torch.equal(found.argsort(dim=1), WEIGHTS[prompts.clean.ids[:, 1:-1]].argsort(dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_leaving_a_token_out_is_the_stock_model_on_its_embeddings_with_the_mean_in_its_place(name: str) -> None:
    lm = model_of(name)
    found = token_importance(lm, PROMPTS, "leave_one_out")
    for item in range(3):
        own, blank = embeddings_of(lm, item)
        for place in range(len(own)):
            without = own.clone()
            without[place] = blank
            expected = plain(lm, item, own) - plain(lm, item, without)
            assert float(found[item, place]) == pytest.approx(float(expected), abs=1e-9)
        assert bool(found[item, len(own) :].isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_times_input_is_the_slope_along_each_embedding(name: str) -> None:
    lm = model_of(name)
    found = token_importance(lm, PROMPTS, "gradient_x_input")
    own, _ = embeddings_of(lm, 1)
    for place in range(len(own)):
        longer, shorter = own.clone(), own.clone()
        longer[place] *= 1 + 1e-3
        shorter[place] *= 1 - 1e-3
        slope = (
            plain(lm, 1, longer) - plain(lm, 1, shorter)
        ) / 2e-3  # RMSNorm computes in float32 whatever it is given
        assert float(found[1, place]) == pytest.approx(float(slope), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_add_up_to_the_change_of_the_readout_or_are_missing(name: str) -> None:
    lm = model_of(name)
    found = token_importance(lm, PROMPTS, "integrated_gradients")
    assert not found[:, 0].isnan().all()
    for item in range(3):
        own, blank = embeddings_of(lm, item)
        change = float(plain(lm, item, own) - plain(lm, item, blank.expand_as(own)))
        parts = found[item, : len(own)]
        assert bool(parts.isnan().all()) or float(parts.sum()) == pytest.approx(change, abs=0.02 * abs(change))


def test_integrated_gradients_of_the_blank_prompt_s_own_answer_are_refused_as_incomplete() -> None:
    """Where the readout does not change on the way, no share of the change can be right."""
    lm = LanguageModel(bag_model(torch.zeros(128), 100), "bag", None, "cpu")
    assert bool(token_importance(lm, bag_prompts(2), "integrated_gradients").isnan().all())


def test_attention_and_rollout_follow_from_the_stock_model_s_maps() -> None:
    hf = tiny("llama", torch.float64)
    lm = LanguageModel(hf, "llama", None, "cpu")
    mean, most, rolled = (token_importance(lm, PROMPTS, each) for each in ("attention", "attention_max", "rollout"))
    stock = tiny("llama", torch.float64)
    stock.set_attn_implementation("eager")
    for item in range(3):
        length = int(BATCH.lengths[item])
        maps = stock(BATCH.ids[item : item + 1, :length], output_attentions=True, use_cache=False).attentions
        rows = torch.stack([each[0, :, -1] for each in maps])
        torch.testing.assert_close(mean[item, :length], rows.mean(dim=(0, 1)).double(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(most[item, :length], rows.amax(dim=(0, 1)).double(), atol=1e-6, rtol=1e-5)
        flow = torch.eye(length, dtype=torch.float64)
        for each in maps:
            flow = (0.5 * each[0].mean(dim=0) + 0.5 * torch.eye(length, dtype=torch.float64)) @ flow
        torch.testing.assert_close(rolled[item, :length], flow[-1], atol=1e-6, rtol=1e-5)
        assert float(rolled[item, :length].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_padded_prompt_gets_the_numbers_that_it_gets_alone(method: str) -> None:
    lm = model_of("gpt2")
    together, alone = token_importance(lm, PROMPTS, method), token_importance(lm, PROMPTS.select(slice(1, 2)), method)
    torch.testing.assert_close(together[1:2, :8], alone, atol=1e-9, rtol=1e-7, equal_nan=True)


def test_the_prompts_as_they_are_read_as_the_model_reads_them_and_nothing_stays_behind() -> None:
    lm = model_of("gemma2")
    given = Embedded.of(lm, BATCH, RIGHT, WRONG)
    logits = lm.logits(BATCH)[torch.arange(3), BATCH.lengths - 1]
    with torch.no_grad():
        torch.testing.assert_close(given.read(given.clean), logit_difference(RIGHT, WRONG)(logits))
        given.read(given.blank.expand_as(given.clean))
    assert torch.equal(lm.logits(BATCH)[torch.arange(3), BATCH.lengths - 1], logits)


def test_prompts_without_answers_have_no_importances() -> None:
    with pytest.raises(NotApplicable, match="correct and wrong answers"):
        token_importance(model_of("gpt2"), Promptset(BATCH), "attention")
