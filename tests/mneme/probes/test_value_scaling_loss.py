"""What scaling a head costs on a text: a planted head that alone foretells it, and full forwards with a head scaled."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.curve import curve_of_arrays
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking, split_items
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from tests import references
from tests.architectures import tiny
from tests.planted import BLOCK, INDUCTION_HEAD, copy_model

PROBE = probes.get("value_scaling_loss")
ALPHAS = [-2.0, 0.0, 1.0, 5.0]


@cache
def small(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def drawn() -> Promptset:
    ids = torch.randint(3, 40, (5, 9), generator=torch.Generator().manual_seed(0))
    return Promptset(Batch(ids, torch.tensor([9, 8, 9, 7, 9])))


def first(lm: LanguageModel, layer: int, head: int) -> Ranking:
    scores = torch.zeros(3, lm.n_layers, lm.n_heads)
    scores[:, layer, head] = 1.0
    return Ranking(scores, is_elsewhere=True)


def curves(lm: LanguageModel, prompts: Promptset, ranking: Ranking, **parameters: object) -> dict[str, Tensor]:
    arrays = measure(PROBE, {"alphas": ALPHAS, **parameters}, prompts, lm=lm, ranking=ranking)
    return {name: curve_of_arrays(arrays, name).values for name in PROBE.curves}


def test_without_the_planted_head_every_next_token_is_equally_likely_and_other_heads_change_nothing() -> None:
    lm = LanguageModel(copy_model(), "planted", None, "cpu")
    body = torch.stack(
        [torch.randperm(BLOCK - 1, generator=torch.Generator().manual_seed(seed))[:8] for seed in (0, 1)]
    )
    prompts = Promptset(Batch.of(torch.cat([torch.full((2, 1), BLOCK - 1), body, body], dim=1)))
    found = curves(lm, prompts, first(lm, *INDUCTION_HEAD))
    at = {alpha: index for index, alpha in enumerate(ALPHAS)}
    clean = measure(probes.get("next_token_loss"), {}, prompts, lm=lm)["values"].double()
    torch.testing.assert_close(found["scaled_loss"][:, at[1.0]], clean, atol=1e-5, rtol=1e-5)
    uniform = torch.full((2,), math.log(BLOCK), dtype=torch.float64)
    torch.testing.assert_close(found["scaled_loss"][:, at[0.0]], uniform, atol=1e-5, rtol=1e-5)
    assert found["layer"].unique().tolist() == [INDUCTION_HEAD[0]]
    assert found["head"].unique().tolist() == [INDUCTION_HEAD[1]]
    controls = found["control_scaled_loss"] - clean[:, None]
    assert float(controls.abs().max()) < 1e-4, "the other heads of the layer write nothing"


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen2", "gemma2"])
def test_it_equals_full_forwards_with_one_head_scaled_everywhere(name: str) -> None:
    lm, prompts = small(name), drawn()
    layer, head = 1, 2
    found = curves(lm, prompts, first(lm, layer, head))
    for at, alpha in enumerate(ALPHAS):
        by_head = [_loss(lm, prompts.clean, layer, each, alpha) for each in range(lm.n_heads)]
        torch.testing.assert_close(found["scaled_loss"][:, at], by_head[head].double(), atol=1e-5, rtol=1e-5)
        others = torch.stack([loss for each, loss in enumerate(by_head) if each != head]).mean(dim=0)
        torch.testing.assert_close(found["control_scaled_loss"][:, at], others.double(), atol=1e-5, rtol=1e-5)


def _loss(lm: LanguageModel, batch: Batch, layer: int, head: int, alpha: float) -> Tensor:
    """Mean loss of each prompt, one prompt at a time, with one head's output scaled."""

    def change(here: int, z: Tensor) -> Tensor:
        if here == layer:
            z[:, :, head] *= alpha
        return z

    with references.changed_heads(lm, change):
        log_probs = torch.log_softmax(references.stock_logits(lm, batch), dim=-1)
    losses = []
    for ids, length, row in zip(batch.ids, batch.lengths.tolist(), log_probs, strict=True):
        losses.append(-row[torch.arange(length - 1), ids[1:length]].mean())
    return torch.stack(losses)


def test_without_another_promptset_the_prompts_that_chose_the_head_are_not_tested() -> None:
    lm, prompts = small("gpt2"), drawn()
    scores = torch.rand(len(prompts), lm.n_layers, lm.n_heads, generator=torch.Generator().manual_seed(0))
    found = curves(lm, prompts, Ranking(scores))
    assert torch.equal(found["scaled_loss"].isnan().all(dim=1), split_items(prompts, 0))


def test_what_cannot_be_asked_is_refused() -> None:
    lm, prompts = small("gpt2"), drawn()
    with pytest.raises(BadInput, match=r"value_scaling_loss\.alphas is \[\]: give a list of numbers"):
        curves(lm, prompts, first(lm, 0, 0), alphas=[])
    nothing = Ranking(torch.full((3, lm.n_layers, lm.n_heads), torch.nan), is_elsewhere=True)
    with pytest.raises(NotApplicable, match="the ranking measured no head"):
        curves(lm, prompts, nothing)
    with pytest.raises(NotApplicable, match="two tokens at least"):
        curves(lm, Promptset(Batch(prompts.clean.ids, torch.ones(5, dtype=torch.int64))), first(lm, 0, 0))
