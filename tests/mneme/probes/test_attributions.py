"""Agreement of importances, and what the model loses without the tokens they name."""

from __future__ import annotations

import math

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.probes.attribution_agreement import _tau
from mneme.promptset import Promptset
from mneme.token_importance import token_importance
from tests.planted import FIRST_ID, bag_model

AGREEMENT, DELETION = probes.get("attribution_agreement"), probes.get("deletion_curve")
WEIGHTS = torch.zeros(128)
WEIGHTS[:30] = torch.linspace(0.2, 3.0, 30)
N_TOKENS, N_ITEMS = 14, 20


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel(bag_model(WEIGHTS, 100), "bag", None, "cpu")


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    """Tokens that all say something, the heaviest of each prompt labelled as its evidence."""
    generator = torch.Generator().manual_seed(1)
    body = torch.stack([torch.randperm(30, generator=generator)[:N_TOKENS] for _ in range(N_ITEMS)])
    ids = torch.cat([torch.full((N_ITEMS, 1), FIRST_ID), body], dim=1)
    answers = torch.full((N_ITEMS, 1), 100)
    heaviest = WEIGHTS[ids[:, :-1]].argmax(dim=1)
    batch = Batch(ids, torch.full((N_ITEMS,), N_TOKENS + 1), {"value": heaviest})
    return Promptset(batch, correct_ids=answers, wrong_ids=answers + 1)


def tau(lm: LanguageModel, prompts: Promptset, **parameters: object) -> torch.Tensor:
    return measure(AGREEMENT, parameters, prompts, lm=lm)["values"]


def curves(lm: LanguageModel, prompts: Promptset, **parameters: object) -> dict[str, torch.Tensor]:
    found = measure(DELETION, parameters, prompts, lm=lm, probe_seed=0)
    return {name.split(".")[1]: values for name, values in found.items() if name.endswith(".values")}


def test_in_a_bag_of_tokens_attention_and_leaving_out_agree_and_a_permuted_one_does_not(lm, prompts) -> None:
    agreed = tau(lm, prompts, second="leave_one_out", n_skipped=1)
    assert agreed.tolist() == pytest.approx([1.0] * N_ITEMS, abs=1e-6)
    permuted = tau(lm, prompts, second="leave_one_out", n_skipped=1, permuted=0)
    n = N_TOKENS - 1
    spread = (2 * (2 * n + 5) / (9 * n * (n - 1)) / N_ITEMS) ** 0.5  # of the mean of so many taus of random orders
    assert abs(float(permuted.mean())) < 4 * spread
    assert not torch.equal(permuted, tau(lm, prompts, second="leave_one_out", n_skipped=1, permuted=1))


def test_tau_counts_pairs_in_the_same_order_against_pairs_in_another(prompts) -> None:
    """Two tokens of eight exchanged: 1 pair of 28 turns, tau = 1 - 2 / 28; a tie in one leaves tau-b's root."""
    order = torch.arange(8.0).double().numpy()
    turned = order.copy()
    turned[[2, 3]] = turned[[3, 2]]
    assert _tau(order, turned) == pytest.approx(1 - 2 / 28)
    tied = order.copy()
    tied[3] = tied[2]
    assert _tau(order, tied) == pytest.approx(27 / (28 * 27) ** 0.5)
    assert math.isnan(_tau(order, 0 * order))


def test_without_the_tokens_of_most_attention_the_answer_falls_more_than_without_random_ones(lm, prompts) -> None:
    found = curves(lm, prompts, ks=[1, 2, 4], n_draws=5)
    assert bool((found["comprehensiveness"] > found["random_comprehensiveness"]).double().mean(dim=0).min() > 0.9)
    assert bool((found["sufficiency"].mean(dim=0) < found["random_sufficiency"].mean(dim=0)).all())
    assert found["evidence_hit"].tolist() == [[1.0] * 3] * N_ITEMS
    assert bool((found["comprehensiveness"].diff(dim=1) > 0).all())


def test_a_token_left_out_is_its_own_comprehensiveness_and_all_of_them_are_enough(lm, prompts) -> None:
    found = curves(lm, prompts, method="leave_one_out", ks=[1, N_TOKENS, N_TOKENS + 1], n_draws=1)
    most = token_importance(lm, prompts, "leave_one_out")[:, :-1].amax(dim=1)
    torch.testing.assert_close(found["comprehensiveness"][:, 0].double(), most, atol=1e-3, rtol=1e-4)
    assert float(found["sufficiency"][:, 1].abs().max()) == pytest.approx(0, abs=1e-4)  # nothing but the asking token
    assert bool(found["comprehensiveness"][:, 2].isnan().all())


def test_prompts_without_a_label_of_evidence_have_no_hits(lm, prompts) -> None:
    assert bool(curves(lm, prompts, ks=[1], n_draws=1, evidence="clue")["evidence_hit"].isnan().all())


def test_an_importance_that_vouches_for_no_prompt_is_refused(prompts) -> None:
    silent = LanguageModel(bag_model(torch.zeros(128), 100), "bag", None, "cpu")
    with pytest.raises(NotApplicable, match="integrated_gradients vouches for none of the prompts"):
        curves(silent, prompts.select(slice(0, 1)), method="integrated_gradients")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"first": "gaze"}, "attribution_agreement.first is 'gaze': choose one of attention"),
        ({"second": "attention"}, "second is 'attention' as is attribution_agreement.first"),
        ({"n_skipped": -1}, "n_skipped is -1"),
    ],
)
def test_methods_that_cannot_be_compared_are_refused(lm, prompts, parameters, words) -> None:
    with pytest.raises(BadInput, match=words):
        tau(lm, prompts, **parameters)


@pytest.mark.parametrize("ks", [[], 4, [0], ["two"]])
def test_sizes_that_are_no_numbers_are_refused(lm, prompts, ks) -> None:
    with pytest.raises(BadInput, match="give a "):
        curves(lm, prompts, ks=ks)


def test_prompts_under_eight_tokens_are_refused(lm, prompts) -> None:
    short = Promptset(Batch.of(prompts.clean.ids[:, :7]), correct_ids=prompts.correct_ids, wrong_ids=prompts.wrong_ids)
    for probe in (AGREEMENT, DELETION):
        with pytest.raises(NotApplicable, match="means something from 8 tokens on"):
            measure(probe, {}, short, lm=lm)
