"""Copy suppression in the weights sees what is planted, and equals what the whole matrices of the definition give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mneme.copying import own_rows
from mneme.errors import BadInput, NotApplicable
from mneme.head_circuits import HeadCircuit, TokenSpace, head_circuits, token_space
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.suppression import lowered, query_ranks
from tests.architectures import tiny

HEAD = (1, 2)
PROMPTS = Promptset(None)  # type: ignore[arg-type]  no probe of the weights may look at it
SCORE, RANK = probes.get("suppression_score"), probes.get("suppression_query_rank")
EYE = torch.eye(4, dtype=torch.float64)


def planted(values: Tensor, queries: Tensor) -> LanguageModel:
    """GPT-2 without norms, tokens e_0 .. e_15 and -e_0 .. -e_15, whose head (1, 2) reads and writes the first four."""
    hf = tiny("gpt2", torch.float64, vocab_size=32, tie_word_embeddings=False)
    transformer = hf.transformer
    for block in transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    transformer.ln_f = nn.Identity()
    eye = torch.eye(16, dtype=torch.float64)
    transformer.wte.weight[:] = torch.cat([eye, -eye])
    hf.lm_head.weight = nn.Parameter(torch.cat([eye, -eye]), requires_grad=False)
    attention = transformer.h[1].attn
    attention.c_attn.bias[:] = 0
    for first, matrix in ((0, queries), (16, EYE), (32, values)):
        attention.c_attn.weight[:, first + 8 : first + 12] = 0
        attention.c_attn.weight[:4, first + 8 : first + 12] = matrix
    attention.c_proj.weight[8:12] = 0
    attention.c_proj.weight[8:12, :4] = EYE
    return LanguageModel(hf.eval(), "planted", None, "cpu")


def test_a_head_that_lowers_what_it_attends_to_has_a_score_of_one_and_a_copying_head_of_nothing() -> None:
    for sign, expected in ((-1, 1.0), (1, 0.0)):
        circuit = list(head_circuits(planted(sign * EYE, EYE), token_space(planted(sign * EYE, EYE))))[6]
        assert lowered(circuit, torch.arange(4), 1).tolist() == [expected] * 4


def test_a_token_that_shares_its_logit_stands_behind_the_others() -> None:
    space = TokenSpace(torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]])
    circuit = HeadCircuit(space, torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64))
    assert lowered(circuit, torch.tensor([0]), 1).tolist() == [0.0]  # token 1 is lowered as much
    assert lowered(circuit, torch.tensor([0]), 2).tolist() == [1.0]


def test_a_head_that_writes_nothing_suppresses_nothing() -> None:
    space = TokenSpace(EYE, EYE)
    assert lowered(HeadCircuit(space, EYE, 0 * EYE), torch.arange(4), 1).isnan().all()


def test_the_score_is_the_copying_rank_of_the_negated_head() -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    every = torch.arange(lm.vocab_size)
    for circuit in head_circuits(lm, token_space(lm)):
        negated = HeadCircuit(circuit.space, circuit.values, -circuit.writes)
        assert torch.equal(lowered(circuit, every, 5), own_rows(negated, every).top5)


@pytest.mark.parametrize(("queries", "expected"), [(EYE, 1.0), (-EYE, 32.0)], ids=["its own", "its opposite"])
def test_a_head_that_asks_for_what_is_predicted_ranks_it_first(queries: Tensor, expected: float) -> None:
    ranks = query_ranks(planted(EYE, queries), torch.arange(8), embedding="plain")[HEAD]
    assert ranks[:4].tolist() == [expected] * 4
    assert ranks[4:].isnan().all()  # the head reads nothing of these: all keys score alike


def test_ranks_equal_those_of_the_whole_matrix_with_shared_keys_and_rotary_positions() -> None:
    lm = LanguageModel(tiny("qwen2", torch.float64), "qwen2", None, "cpu")
    space, config = token_space(lm), lm.hf.config
    layer = lm.hf.model.layers[1]
    width, n_shared = lm.head_width, config.num_attention_heads // config.num_key_value_heads
    direction = space.unembed * 10 * lm.d_model**0.5 / space.unembed.norm(dim=1, keepdim=True)
    asked = layer.self_attn.q_proj(layer.input_layernorm(direction))
    offered = layer.self_attn.k_proj(layer.input_layernorm(space.embedding))
    found = query_ranks(lm, torch.arange(lm.vocab_size), embedding="plain")[1]
    for head in range(lm.n_heads):
        first = head // n_shared
        query, key = (each[:, at * width : (at + 1) * width] for each, at in ((asked, head), (offered, first)))
        scores = query @ key.T
        assert torch.equal(found[head], (scores >= scores.diagonal()[:, None]).sum(dim=1).double())


def test_random_pairs_take_both_scores_away() -> None:
    lm = planted(-EYE, EYE)
    own, other = (
        measure(RANK, {"control": each, "embedding": "plain"}, PROMPTS, lm=lm)["scores"][HEAD]
        for each in ("none", "random_pairs")
    )
    assert float(own) == 1.0
    assert float(other) > 1.0
    own, other = (
        measure(SCORE, {"control": each, "n_lowest": 1}, PROMPTS, lm=lm)["scores"][HEAD]
        for each in ("none", "random_pairs")
    )
    assert float(own) == 1.0
    assert float(other) < 0.2


def test_the_median_rank_is_the_probes_number() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    found = measure(RANK, {"n_tokens": 40}, PROMPTS, lm=lm)["scores"]
    assert torch.equal(found, query_ranks(lm, torch.arange(40)).nanmedian(dim=-1).values.float())


def test_models_without_fixed_circuits_and_words_that_mean_nothing_are_refused() -> None:
    gemma = LanguageModel(tiny("gemma2"), "gemma2", None, "cpu")
    with pytest.raises(NotApplicable, match="norms what its heads write"):
        measure(SCORE, {}, PROMPTS, lm=gemma)
    assert measure(RANK, {}, PROMPTS, lm=gemma)["scores"].shape == (gemma.n_layers, gemma.n_heads)
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    for probe, parameters, sentence in (
        (SCORE, {"n_lowest": 0}, "suppression_score.n_lowest is 0"),
        (SCORE, {"control": "shuffled"}, "choose one of none, random_pairs, random_weights"),
        (RANK, {"control": "random_weights"}, "choose one of none, random_pairs"),
        (RANK, {"embedding": "whole"}, "choose one of plain, effective"),
        (RANK, {"n_tokens": 0}, "suppression_query_rank.n_tokens is 0"),
    ):
        with pytest.raises(BadInput, match=sentence):
            measure(probe, parameters, PROMPTS, lm=lm)
