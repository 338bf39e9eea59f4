import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.ablation import ablate_head_sets
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking, order_of_heads, split_items
from mneme.measuring import measure
from mneme.model import load_model
from mneme.primary_readout import primary_readout
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.promptsets.repeated_tokens import repeated_tokens
from tests.planted import BLOCK, INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, VOCABULARY, copy_model, save

ABLATION = probes.get("head_ablation")
INDUCTION = probes.get("induction")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(save(copy_model(), tmp_path_factory.mktemp("planted")))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(save(GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def promptset():
    return repeated_tokens(VOCABULARY, seed=0, n_items=8, period=20)


def ablated(lm, prompts, probe_seed=0, **parameters):
    ranking = measure(INDUCTION, {}, prompts, lm=lm)["scores"]
    return measure(ABLATION, parameters, prompts, lm=lm, ranking=ranking, probe_seed=probe_seed)


def test_zeroing_a_planted_head_costs_all_and_any_other_head_nothing(planted, promptset):
    effects = ablated(planted, promptset, kind="zero", ks=[1])["effects"]
    for head in (PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD):
        lost = effects[:, head[0], head[1]]
        assert float(lost.min()) > 3
    induction = effects[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]]
    torch.testing.assert_close(induction, torch.full_like(induction, math.log(BLOCK)), atol=1e-3, rtol=0)
    inert = effects.clone()
    for head in (PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD):
        inert[:, head[0], head[1]] = 0
    assert float(inert.abs().max()) < 1e-4


def test_the_mean_of_the_prompts_is_no_substitute_for_the_planted_heads(planted, promptset):
    effects = ablated(planted, promptset, kind="mean", ks=[1])["effects"]
    assert float(effects[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]].min()) > 1
    assert float(effects[:, PREVIOUS_TOKEN_HEAD[0], PREVIOUS_TOKEN_HEAD[1]].min()) > 1
    assert float(effects[:, :, 1:].abs().max()) < 1e-4


def test_the_tested_set_stands_out_of_every_control_of_its_layer(planted, promptset):
    found = ablated(planted, promptset, kind="zero", ks=[1, 2])
    assert found["top_heads"][0].tolist() == list(INDUCTION_HEAD)
    assert found["n_distinct"].tolist()[0] == 3
    assert found["n_draws"].tolist()[0] == 3
    tested = ~found["set_effects"][:, 0].isnan()
    assert int(tested.sum()) == 4
    assert float(found["set_effects"][tested, 0].min()) > 4
    assert float(found["control_effects"][tested, 0, :3].abs().max()) < 1e-4


def test_heads_are_ranked_on_prompts_that_are_not_tested(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (9, 20), generator=torch.Generator().manual_seed(0))))
    ranking = torch.zeros(9, 2, 4)
    ranked_on = split_items(prompts, 3)
    ranking[ranked_on, 1, 2] = 1.0
    ranking[~ranked_on, 0, 1] = 5.0
    found = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=ranking, probe_seed=3)
    assert found["top_heads"].tolist() == [[1, 2]]
    assert torch.equal(found["set_effects"][:, 0].isnan(), ranked_on)


def test_set_effects_are_the_difference_of_two_readouts(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (6, 20), generator=torch.Generator().manual_seed(0))))
    ranking = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(1))
    found = measure(ABLATION, {"ks": [2], "kind": "zero"}, prompts, lm=small, ranking=ranking)
    top = [tuple(head) for head in found["top_heads"].tolist()]
    both = ablate_head_sets(small, prompts.clean, primary_readout(prompts), [(), top], "zero")
    tested = ~found["set_effects"][:, 0].isnan()
    torch.testing.assert_close(found["set_effects"][tested, 0], (both[:, 0] - both[:, 1])[tested], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["clean"], both[:, 0])


def test_answers_make_the_logit_difference_the_readout(small):
    ids = torch.randint(1, 50, (6, 20), generator=torch.Generator().manual_seed(0))
    answers = torch.arange(6)[:, None]
    prompts = Promptset(Batch.of(ids), correct_ids=answers, wrong_ids=answers + 10)
    found = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=torch.rand(6, 2, 4))
    difference = measure(probes.get("logit_difference"), {}, prompts, lm=small)["values"]
    torch.testing.assert_close(found["clean"], difference, atol=1e-5, rtol=1e-4)


def test_a_set_that_takes_a_whole_layer_has_no_control(planted, promptset):
    ranking = torch.zeros(8, 2, 4)
    ranking[:, 1] = 1.0
    found = measure(ABLATION, {"ks": [4]}, promptset, lm=planted, ranking=ranking)
    assert found["n_distinct"].tolist() == [0]
    assert torch.isnan(found["control_effects"]).all()


def test_the_same_seed_gives_the_same_halves_and_controls(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (8, 20), generator=torch.Generator().manual_seed(0))))
    ranking = torch.rand(8, 2, 4, generator=torch.Generator().manual_seed(1))
    parameters = {"ks": [1, 2], "n_draws": 2}
    first, again, other = (
        measure(ABLATION, parameters, prompts, lm=small, ranking=ranking, probe_seed=seed) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name].nan_to_num(-9), again[name].nan_to_num(-9)) for name in first)
    assert not torch.equal(first["set_effects"].isnan(), other["set_effects"].isnan())


def test_ties_go_to_the_lower_layer_and_head_and_unmeasured_heads_are_left_out():
    ranking = torch.tensor([[[0.5, torch.nan], [0.5, 0.9]]])
    assert order_of_heads(ranking) == [(1, 1), (0, 0), (1, 0)]


def test_clusters_are_never_split_between_ranking_and_testing():
    clusters = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    prompts = Promptset(Batch.of(torch.ones(8, 4, dtype=torch.int64)), clusters=clusters)
    half = split_items(prompts, 0)
    assert not set(clusters[half].tolist()) & set(clusters[~half].tolist())


def test_heads_ranked_on_other_prompts_are_tested_on_every_prompt(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (5, 20), generator=torch.Generator().manual_seed(0))))
    scores = torch.zeros(3, 2, 4)
    scores[:, 1, 2] = 1.0
    found = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=Ranking(scores, is_elsewhere=True))
    assert found["top_heads"].tolist() == [[1, 2]]
    torch.testing.assert_close(found["set_effects"][:, 0], found["effects"][:, 1, 2], atol=1e-5, rtol=1e-4)
    of_weights = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=Ranking(scores[0], is_elsewhere=True))
    assert torch.equal(of_weights["set_effects"], found["set_effects"])
    halves = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=Ranking(scores[:1].expand(5, -1, -1)))
    assert int(halves["set_effects"].isnan().sum()) == 2


def test_one_prompt_can_be_tested_where_heads_are_ranked_on_others(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (1, 8), generator=torch.Generator().manual_seed(0))))
    found = measure(ABLATION, {"ks": [1]}, prompts, lm=small, ranking=Ranking(torch.rand(4, 2, 4), is_elsewhere=True))
    assert not found["set_effects"].isnan().any()


def test_uniform_attention_takes_a_planted_head_away_and_changes_no_head_that_is_uniform(planted, promptset):
    effects = ablated(planted, promptset, kind="uniform", ks=[1])["effects"]
    for layer, head in (PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD):
        assert float(effects[:, layer, head].min()) > 1
    assert float(effects[:, :, 1:].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"kind": "half"}, "mean, zero, uniform"),
        ({"ks": [0]}, "at least 1"),
        ({"ks": 2}, "list"),
        ({"ks": []}, "list"),
        ({"n_draws": 0}, "at least 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(small, parameters, words):
    prompts = Promptset(Batch.of(torch.ones(4, 8, dtype=torch.int64)))
    with pytest.raises(BadInput, match=words):
        measure(ABLATION, parameters, prompts, lm=small, ranking=torch.rand(4, 2, 4))


def test_sets_of_more_heads_than_were_ranked_are_left_out_and_refused_where_all_are(small):
    prompts = Promptset(Batch.of(torch.randint(1, 50, (4, 8), generator=torch.Generator().manual_seed(0))))
    ranking = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(1))
    ranking[:, 1] = torch.nan  # four of eight heads are measured
    found = measure(ABLATION, {"ks": [1, 4, 5, 8]}, prompts, lm=small, ranking=ranking)
    assert found["k"].tolist() == [1, 4]
    with pytest.raises(NotApplicable, match="the ranking measured 4 heads, fewer than any of ks"):
        measure(ABLATION, {"ks": [5, 8]}, prompts, lm=small, ranking=ranking)


def test_one_prompt_cannot_both_rank_and_test(small):
    prompts = Promptset(Batch.of(torch.ones(1, 8, dtype=torch.int64)))
    with pytest.raises(NotApplicable, match="two"):
        measure(ABLATION, {}, prompts, lm=small, ranking=torch.rand(1, 2, 4))


def test_a_ranking_of_other_prompts_is_refused(small):
    prompts = Promptset(Batch.of(torch.ones(4, 8, dtype=torch.int64)))
    with pytest.raises(BadInput, match=r"\(4, 2, 4\)"):
        measure(ABLATION, {}, prompts, lm=small, ranking=torch.rand(3, 2, 4))
