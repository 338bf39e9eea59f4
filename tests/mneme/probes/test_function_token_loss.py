"""Losses by class of the pair, by hand; the shuffled control; and how many neurons each class stirs."""

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.function_tokens import is_function_token, is_text, matched
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.neurons import neuron_activations
from mneme.probe import probes
from mneme.probes.function_token_loss import function_token_loss
from mneme.promptset import Promptset
from mneme.scores import TokenScores
from tests.architectures import tiny

FUNCTION_ID, FACTS = 5, {"offset": 1, "frequencies": [[5, 60_000], [6, 30_000], [7, 30_000]]}


def scored(ids, losses):
    prompts = Promptset(Batch.of(torch.tensor([ids])), facts=FACTS)
    log_prob = torch.tensor([[-each for each in losses] + [torch.nan]])
    return TokenScores(log_prob, torch.zeros_like(log_prob)), prompts


def test_each_pair_counts_in_its_class_and_the_first_token_in_none():
    scores, prompts = scored([0, 5, 6, 7, 5, 5], [100.0, 1.0, 2.0, 4.0, 8.0])
    pairs = {("function", "content"): 1, ("content", "content"): 2, ("content", "function"): 4}
    for (current, following), loss in (pairs | {("function", "function"): 8}).items():
        assert float(function_token_loss(scores, prompts, current=current, following=following)) == loss


def test_a_prompt_without_such_a_pair_has_no_loss():
    scores, prompts = scored([0, 6, 7, 6], [1.0, 1.0, 1.0])
    assert bool(function_token_loss(scores, prompts).isnan().all())


def test_with_shuffled_classes_all_pairs_lose_alike():
    generator = torch.Generator().manual_seed(0)
    ids = torch.where(torch.rand(400, 60, generator=generator) < 0.5, 5, 6)
    ids[:, 0] = 0
    prompts = Promptset(Batch.of(ids), facts=FACTS)
    losses = torch.where((ids[:, :-1] == 5) & (ids[:, 1:] == 6), 3.0, 1.0)
    log_prob = torch.cat([-losses, torch.full((400, 1), torch.nan)], dim=1)
    scores = TokenScores(log_prob, torch.zeros_like(log_prob))
    pairs = [(current, following) for current in ("function", "content") for following in ("function", "content")]
    real = [float(function_token_loss(scores, prompts, current=a, following=b).nanmean()) for a, b in pairs]
    assert real == [1, 3, 1, 1]
    dealt = [
        float(function_token_loss(scores, prompts, current=a, following=b, shuffle_seed=0).nanmean()) for a, b in pairs
    ]
    assert max(dealt) - min(dealt) < 0.06


@pytest.mark.parametrize(
    ("parameters", "message"), [({"current": "verb"}, "current"), ({"shuffle_seed": -1}, "shuffle_seed")]
)
def test_parameters_that_cannot_be_meant_are_refused(parameters, message):
    scores, prompts = scored([0, 5, 6], [1.0, 1.0])
    with pytest.raises(BadInput, match=message):
        function_token_loss(scores, prompts, **parameters)


def test_a_small_corpus_makes_no_sense():
    scores, prompts = scored([0, 5, 6], [1.0, 1.0])
    with pytest.raises(NotApplicable, match="100000"):
        function_token_loss(scores, Promptset(prompts.clean, facts={"offset": 1}))


def test_as_many_places_of_either_class_are_kept():
    first = torch.tensor([[True, False, True, True, False, False], [True, False, False, False, False, False]])
    second = ~first
    drawn = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.8, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1, 0.6]])
    kept = matched(first, second, drawn)
    assert kept[0].tolist() == first.tolist()
    assert kept[1].tolist() == [[False, True, False, False, True, True], [False] * 4 + [True, False]]


def test_coverage_is_the_share_of_active_neurons_that_a_loop_counts():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    ids = torch.randint(5, 8, (4, 12), generator=torch.Generator().manual_seed(0))
    prompts = Promptset(Batch.of(ids), facts=FACTS)
    is_function = is_function_token(prompts, 0.4)
    drawn = torch.rand(ids.shape, generator=torch.Generator().manual_seed(3))
    places = matched(is_function, is_text(prompts) & ~is_function, drawn)
    found = measure(probes.get("function_token_coverage"), {"top_k": 2}, prompts, lm=lm, probe_seed=3)
    for layer, activations in enumerate(neuron_activations(lm, prompts.clean)):
        for item in range(4):
            stirred = [set(activations[item, t].abs().topk(2).indices.tolist()) for t in range(12)]
            everywhere = set().union(*stirred[1:])
            for name, chosen in zip(("function", "content"), places, strict=True):
                mine = set().union(*(stirred[t] for t in range(12) if chosen[item, t]))
                share = float(found[f"curve.{name}_coverage.values"][item, layer])
                assert share == pytest.approx(len(mine) / len(everywhere))


def test_more_active_neurons_than_there_are_is_refused():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    prompts = Promptset(Batch.of(torch.tensor([[0, 5, 6, 7]])), facts=FACTS)
    with pytest.raises(BadInput, match="from 1 to 24"):
        measure(probes.get("function_token_coverage"), {"top_k": 25}, prompts, lm=lm)
