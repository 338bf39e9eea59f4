import math

import pytest
import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.measuring import measure
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.summaries import summarise

PROBE = probes.get("repeat_surprisal")
VOCABULARY, SURE = 1000, 0.9


def lists(first: Tensor, second: Tensor, between: int = 0) -> Promptset:
    """Two lists without separators, [list noun] each, behind one token and with a text between."""
    n_lists, n_nouns = first.shape
    filler = torch.arange(between).expand(n_lists, between) + 500
    ids = torch.cat([torch.full((n_lists, 1), VOCABULARY - 1), first, filler, second], dim=1)
    starts = {"list1": 1, "list2": 1 + n_nouns + between}
    labels = {
        f"{name}_{number}": torch.full((n_lists,), start + number)
        for name, start in starts.items()
        for number in range(n_nouns)
    }
    return Promptset(Batch(ids, torch.full((n_lists,), ids.shape[1]), labels))


def measured(log_prob: Tensor, prompts: Promptset) -> Tensor:
    """The items, from log-probabilities [item position] in nats."""
    return measure(PROBE, {}, prompts, trace={"log_prob": log_prob, "is_top1": torch.zeros_like(log_prob)})["values"]


def copier(ids: Tensor) -> Tensor:
    """Log-probabilities of a scripted reader: 0.9 on what followed the last match, the rest spread evenly."""
    log_prob = torch.full(ids.shape, torch.nan)
    for row, tokens in enumerate(ids.tolist()):
        for at in range(len(tokens) - 1):
            matches = [place for place in range(at) if tokens[place] == tokens[at]]
            follows = tokens[matches[-1] + 1] if matches else None
            share = 1 / VOCABULARY if follows is None else (1 - SURE) / (VOCABULARY - 1)
            log_prob[row, at] = math.log(SURE if follows == tokens[at + 1] else share)
    return log_prob


def drawn(n_lists: int, n_nouns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(400, generator=generator)[:n_nouns] for _ in range(n_lists)])


def test_ten_and_ten_bits_that_become_one_and_three_leave_twenty_percent() -> None:
    prompts = lists(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]]))
    bits = torch.tensor([[99.0, 10, 10, 99, 1, 3, torch.nan]])  # at the token before: nouns 0, 1, 2 of each list
    assert measured(-bits * math.log(2), prompts).tolist() == pytest.approx([20.0])


def test_a_uniform_reader_is_as_surprised_again() -> None:
    first = drawn(5, 7)
    prompts = lists(first, first, between=9)
    uniform = torch.full(prompts.clean.ids.shape, -math.log(VOCABULARY))
    assert measured(uniform, prompts).tolist() == pytest.approx([100.0] * 5)


def test_a_copier_remembers_a_repeated_list_not_a_new_one_and_is_misled_by_another_order() -> None:
    first = drawn(6, 5)
    backwards = first.flip(1)  # no noun follows the one before it any more
    for second, expected in ((first, 1.53), (first + 400, 100.0), (backwards, 133.3)):
        prompts = lists(first, second, between=4)
        assert measured(copier(prompts.clean.ids), prompts).tolist() == pytest.approx([expected] * 6, abs=0.06)


def test_a_list_that_hardly_surprises_has_nothing_to_remember() -> None:
    prompts = lists(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]]))
    assert torch.isnan(measured(torch.full((1, 7), -0.5), prompts)).all()


def test_the_group_value_is_the_median_with_its_interval_and_the_mean_beside_it() -> None:
    values = torch.tensor([1.0, 2, 3, 4, 90])
    first = drawn(5, 3)
    rows = summarise(PROBE, {"values": values}, lists(first, first), {}, 0)["behavior"]
    median, mean = rows
    assert (median["readout"], median["value"]) == ("repeat_surprisal", 3)
    assert (median["ci_low"], median["ci_high"]) == (1, 90)
    assert (mean["readout"], mean["value"]) == ("repeat_surprisal_mean", 20)
    assert median["n_items"] == mean["n_items"] == 5


def test_prompts_without_named_nouns_are_refused() -> None:
    with pytest.raises(NotApplicable, match="ends: full"):
        measured(torch.zeros(1, 4), Promptset(Batch.of(torch.tensor([[1, 2, 3, 4]]))))
