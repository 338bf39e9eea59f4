"""Surprisal by place in a list, and lists of several sizes in one promptset."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.curve import curve_of_arrays
from mneme.errors import NotApplicable
from mneme.list_surprisal import mean_bits, noun_bits, noun_places, predicting_mask
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.planted import BLOCK, copy_model, save, uniform_model

BY_POSITION, RATIO, INDEX = (
    probes.get(name) for name in ("repeat_surprisal_by_position", "repeat_surprisal", "repeat_surprisal_index")
)


def listed(first: Tensor, second: Tensor, sizes: list[int]) -> Promptset:
    """Two lists [list noun] each behind one token, of which the first `sizes` nouns count; the rest is filler."""
    n_lists, n_nouns = first.shape
    ids = torch.cat([torch.full((n_lists, 1), BLOCK - 1), first, second], dim=1)
    labels = {
        f"{name}_{number}": torch.tensor([start + min(number, size - 1) for size in sizes])
        for name, start in (("list1", 1), ("list2", 1 + n_nouns))
        for number in range(n_nouns)
    }
    return Promptset(Batch(ids, torch.full((n_lists,), ids.shape[1]), labels))


def curves_of(lm: LanguageModel, prompts: Promptset) -> dict[str, Tensor]:
    arrays = measure(BY_POSITION, {}, prompts, lm=lm)
    return {name: curve_of_arrays(arrays, name).values for name in BY_POSITION.curves}


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(copy_model(), tmp_path_factory.mktemp("copier")))


@pytest.fixture(scope="module")
def prompts() -> Promptset:
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([torch.randperm(BLOCK - 1, generator=generator)[:6] for _ in range(4)])
    return listed(first, first, [6, 6, 3, 4])


def test_the_planted_copier_knows_every_place_after_the_cue(copier: LanguageModel, prompts: Promptset) -> None:
    found = curves_of(copier, prompts)
    share, second = found["repeat_surprisal_by_position"], found["second_surprisal"]
    assert float(share[:, 1:].nan_to_num(0).max()) < 1e-6
    assert float(second[:, 0].min()) > 2  # any noun of list 1 may come first
    assert float(found["first_surprisal"].nan_to_num(99).min()) > math.log2(BLOCK) / 2


def test_a_uniform_model_is_as_surprised_at_every_place(tmp_path: Path, prompts: Promptset) -> None:
    found = curves_of(load_model(save(uniform_model(), tmp_path)), prompts)
    share = found["repeat_surprisal_by_position"]
    assert share[0].tolist() == pytest.approx([100.0] * 6, abs=1e-3)
    assert share.isnan().sum(dim=1).tolist() == [0, 0, 3, 2]
    assert torch.equal(found["second_surprisal"].isnan(), share.isnan())


def test_the_places_after_the_cue_average_to_the_items_repeat_surprisal(
    copier: LanguageModel, prompts: Promptset
) -> None:
    other = torch.roll(torch.arange(24).reshape(4, 6), 1, dims=1)
    mixed = listed(prompts.clean.ids[:, 1:7], other, [6, 5, 3, 4])
    share = curves_of(copier, mixed)["repeat_surprisal_by_position"]
    ratio = measure(RATIO, {}, mixed, lm=copier)["values"]
    torch.testing.assert_close(share[:, 1:].nanmean(dim=1), ratio, rtol=1e-5, atol=1e-4)
    index = measure(INDEX, {}, mixed, lm=copier)["values"]
    torch.testing.assert_close(index, (ratio / 100 - 1) / (ratio / 100 + 1), rtol=1e-5, atol=1e-5)


def test_ten_and_ten_bits_that_become_one_and_three_have_an_index_of_minus_two_thirds() -> None:
    three = torch.tensor([[1, 2, 3]])
    bits = torch.tensor([[99.0, 10, 10, 99, 1, 3, torch.nan]])
    trace = {"log_prob": -bits * math.log(2), "is_top1": torch.zeros_like(bits)}
    found = measure(INDEX, {}, listed(three, three, [3]), trace=trace)["values"]
    assert found.tolist() == pytest.approx([-2 / 3])


def test_a_shorter_list_counts_its_own_nouns_alone() -> None:
    first = torch.arange(10).reshape(2, 5)
    prompts = listed(first, first, [5, 3])
    bits = torch.arange(11.0).expand(2, 11)
    places = noun_places(prompts, "list1", "the test")
    assert places.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, -1, -1]]
    found = noun_bits(-bits * math.log(2), places)
    assert found[1, :3].tolist() == pytest.approx([0, 1, 2])
    assert mean_bits(found).tolist() == pytest.approx([2.5, 1.5])
    assert torch.nonzero(predicting_mask(prompts, "list1", "the test")).tolist() == [
        *([0, each] for each in (1, 2, 3, 4)),
        *([1, each] for each in (1, 2)),
    ]


def test_prompts_without_named_nouns_are_refused(copier: LanguageModel) -> None:
    for probe in (BY_POSITION, RATIO, INDEX):
        with pytest.raises(NotApplicable, match=f"{probe.name} needs two lists of named nouns"):
            measure(probe, {}, Promptset(Batch.of(torch.ones(2, 8, dtype=torch.int64))), lm=copier)
