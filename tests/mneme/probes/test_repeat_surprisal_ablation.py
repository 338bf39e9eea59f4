"""A list is forgotten without the planted heads and with no other; both lists are read by the same changed model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking
from mneme.list_surprisal import predicting_mask
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.readouts import log_probability
from tests.architectures import tiny
from tests.planted import BLOCK, INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, copy_model, save

ABLATION, SURPRISAL = probes.get("repeat_surprisal_ablation"), probes.get("repeat_surprisal")
N_LISTS, N_NOUNS, N_BETWEEN = 6, 5, 4


def told(vocab_size: int, sizes: tuple[int, ...] = (5, 5, 3, 5, 4, 5)) -> Promptset:
    """Lists without separators behind one token, text between, and the lists again; some are shorter."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(vocab_size - 1, generator=generator)[:9] for _ in range(N_LISTS)])
    nouns, between = drawn[:, :N_NOUNS], drawn[:, N_NOUNS:]
    ids = torch.cat([torch.full((N_LISTS, 1), vocab_size - 1), nouns, between, nouns], dim=1)
    labels = {
        f"{name}_{number}": torch.tensor([start + min(number, size - 1) for size in sizes])
        for name, start in (("list1", 1), ("list2", 1 + N_NOUNS + N_BETWEEN))
        for number in range(N_NOUNS)
    }
    return Promptset(Batch(ids, torch.full((N_LISTS,), ids.shape[1]), labels))


def ablated(lm: LanguageModel, prompts: Promptset, ranking: Ranking | Tensor, **given: object) -> dict[str, Tensor]:
    return measure(ABLATION, given, prompts, lm=lm, ranking=ranking)


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(copy_model(), tmp_path_factory.mktemp("copier")))


@pytest.fixture(scope="module")
def elsewhere() -> Ranking:
    scores = torch.zeros(3, 2, 4)
    scores[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]] = 1.0
    return Ranking(scores, is_elsewhere=True)


def test_without_a_planted_head_the_list_is_forgotten_and_without_another_it_is_not(
    copier: LanguageModel, elsewhere: Ranking
) -> None:
    found = ablated(copier, told(BLOCK), elsewhere, kind="zero", ks=[1])
    assert float(found["clean"].abs().max()) < 0.1
    effects = found["effects"].clone()
    induction = effects[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]]
    assert induction.tolist() == pytest.approx([100.0] * N_LISTS, abs=0.1)  # every token is as likely as any
    previous = effects[:, PREVIOUS_TOKEN_HEAD[0], PREVIOUS_TOKEN_HEAD[1]]
    assert float(previous.min()) > 20  # which nouns stood there is still known, their order is not
    for head in (INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD):
        effects[:, head[0], head[1]] = 0
    assert float(effects.abs().max()) < 1e-3


def test_the_top_head_stands_out_of_its_controls_on_every_prompt(copier: LanguageModel, elsewhere: Ranking) -> None:
    found = ablated(copier, told(BLOCK), elsewhere, kind="zero", ks=[1])
    assert found["top_heads"].tolist() == [list(INDUCTION_HEAD)]
    assert found["set_effects"][:, 0].tolist() == pytest.approx([100.0] * N_LISTS, abs=0.1)
    assert found["n_draws"].tolist() == found["n_distinct"].tolist() == [3]
    assert float(found["control_effects"].abs().max()) < 1e-3


def test_heads_ranked_on_these_prompts_are_tested_on_the_other_half(copier: LanguageModel) -> None:
    found = ablated(copier, told(BLOCK), torch.rand(N_LISTS, 2, 4), ks=[1], n_draws=2)
    assert int(found["set_effects"].isnan().sum()) == N_LISTS // 2
    assert bool(found["effects"].isfinite().all())


@pytest.mark.parametrize("kind", ["mean", "zero", "uniform"])
def test_it_equals_the_ratio_of_two_full_runs(kind: str) -> None:
    lm, prompts = LanguageModel(tiny("qwen2"), "qwen2", None, "cpu"), told(40)
    found = ablated(lm, prompts, Ranking(torch.rand(3, 3, 4), is_elsewhere=True), kind=kind, ks=[3], n_draws=2)
    sets = [(), [(1, 2)], [tuple(head) for head in found["top_heads"].tolist()]]
    reference = prompts.clean if kind == "mean" else None
    masks = [predicting_mask(prompts, name, "it") for name in ("list1", "list2")]
    readouts = [log_probability(prompts.clean, mask) for mask in masks]
    bits = [ablate_head_sets(lm, prompts.clean, each, sets, kind, reference) for each in readouts]
    ratio = 100 * bits[1] / bits[0]
    torch.testing.assert_close(found["clean"], ratio[:, 0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["effects"][:, 1, 2], ratio[:, 1] - ratio[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["set_effects"][:, 0], ratio[:, 2] - ratio[:, 0], rtol=1e-3, atol=1e-3)
    surprisal = measure(SURPRISAL, {}, prompts, lm=lm)["values"]
    torch.testing.assert_close(found["clean"], surprisal, rtol=1e-4, atol=1e-3)


def test_a_list_that_surprises_by_less_than_a_bit_has_nothing_to_forget(copier: LanguageModel) -> None:
    prompts = told(BLOCK)
    prompts.clean.ids[0, 1:6] = prompts.clean.ids[0, 1]  # from its second noun on, the copier knows list 1
    prompts.clean.ids[0, 10:] = prompts.clean.ids[0, 1]
    found = ablated(copier, prompts, Ranking(torch.rand(3, 2, 4), is_elsewhere=True), ks=[1], n_draws=1)
    is_known = measure(SURPRISAL, {}, prompts, lm=copier)["values"].isnan()
    assert is_known.tolist() == [True] + [False] * 5
    for name in ("clean", "effects", "set_effects", "control_effects"):
        assert torch.equal(found[name].isnan().reshape(N_LISTS, -1).any(dim=1), is_known)


def test_what_cannot_be_ablated_is_refused(copier: LanguageModel, elsewhere: Ranking) -> None:
    with pytest.raises(BadInput, match=r"repeat_surprisal_ablation.ks is 2"):
        ablated(copier, told(BLOCK), elsewhere, ks=2)
    with pytest.raises(BadInput, match="choose one of mean, zero, uniform"):
        ablated(copier, told(BLOCK), elsewhere, kind="half")
    bare = Promptset(Batch.of(torch.ones(4, 8, dtype=torch.int64)))
    with pytest.raises(NotApplicable, match="repeat_surprisal_ablation needs two lists of named nouns"):
        ablated(copier, bare, elsewhere)
