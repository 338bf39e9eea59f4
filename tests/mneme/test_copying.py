"""Copying scores see what is planted in the weights, and equal what the whole matrix of the definition gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mneme.copying import EMBEDDINGS, copying_scores, own_rows, scores_of_circuits, tokens_of
from mneme.errors import BadInput, NotApplicable
from mneme.head_circuits import HeadCircuit, TokenSpace, head_circuits, token_space
from mneme.measuring import head_scores, measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.planted import INDUCTION_HEAD, copy_model, save

HEAD = (1, 2)
PROMPTS = Promptset(None)  # type: ignore[arg-type]  no probe of the weights may look at it
PROBES = {"eigenvalue": "copying_score", "top5": "copying_top5", "z": "copying_z"}


def planted(matrix: Tensor, common: float = 0.0) -> LanguageModel:
    """GPT-2 without norms, tokens e_0 .. e_15 and -e_0 .. -e_15, whose head (1, 2) has the OV matrix `matrix` [4 4].

    common is added to every row of the unembedding: a direction that raises all logits alike.
    """
    hf = tiny("gpt2", torch.float64, vocab_size=32, tie_word_embeddings=False)
    transformer = hf.transformer
    for block in transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    transformer.ln_f = nn.Identity()
    eye = torch.eye(16, dtype=torch.float64)
    transformer.wte.weight[:] = torch.cat([eye, -eye])
    hf.lm_head.weight = nn.Parameter(torch.cat([eye, -eye]) + common, requires_grad=False)
    attention = transformer.h[1].attn
    attention.c_attn.weight[:, 32 + 8 : 32 + 12] = 0
    attention.c_attn.weight[:4, 32 + 8 : 32 + 12] = matrix
    attention.c_proj.weight[8:12] = 0
    attention.c_proj.weight[8:12, :4] = torch.eye(4, dtype=torch.float64)
    return LanguageModel(hf.eval(), "planted", None, "cpu")


EYE = torch.eye(4, dtype=torch.float64)
ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("common", [0.0, 3.0])
@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (EYE, 1.0),
        (-EYE, -1.0),
        (torch.block_diag(ROTATION, ROTATION), 0.0),
        (torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)), 0.5),
    ],
    ids=["identity", "negative", "rotations", "three of four"],
)
def test_eigenvalue_copying_of_planted_matrices(matrix: Tensor, expected: float, common: float) -> None:
    scores = copying_scores(planted(matrix, common), torch.arange(4))
    assert float(scores.eigenvalue[HEAD]) == pytest.approx(expected, abs=1e-6)


def test_a_head_that_copies_is_among_its_own_top_five_and_stands_out() -> None:
    copying = copying_scores(planted(EYE), torch.arange(4))
    negative = copying_scores(planted(-EYE), torch.arange(4))
    assert float(copying.top5[HEAD]) == 1.0
    assert float(negative.top5[HEAD]) == 0.0
    # the row of a token holds its own 1, the -1 of its opposite and 30 zeros: mean 0, standard deviation 1/4
    assert float(copying.z[HEAD]) == pytest.approx(4)
    assert float(negative.z[HEAD]) == pytest.approx(-4)


def test_a_head_that_moves_no_logit_has_no_score_and_ties_earn_no_credit() -> None:
    scores = copying_scores(planted(0 * EYE), torch.arange(4))
    assert all(bool(each[HEAD].isnan()) for each in (scores.eigenvalue, scores.top5, scores.z))
    assert not bool(scores.eigenvalue[0].isnan().any())
    eye = torch.eye(16, dtype=torch.float64)
    space = TokenSpace(eye[:8], eye[:8])
    alike = torch.ones(16, 1, dtype=torch.float64)  # raises eight of eight tokens alike, whichever it attends to
    assert bool(own_rows(HeadCircuit(space, alike, alike.T), torch.arange(8)).top5.isnan().all())
    half = alike * (torch.arange(16) < 6)[:, None]  # raises six tokens alike and not the two others
    assert own_rows(HeadCircuit(space, alike, half.T), torch.arange(8)).top5.tolist() == [0.0] * 8


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_small_and_whole_matrices_have_the_same_eigenvalues(embedding: str) -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    first, layer = lm.hf.model.layers[0], lm.hf.model.layers[1]
    tokens = lm.hf.model.embed_tokens.weight
    if embedding == "effective":
        tokens = tokens + first.mlp(first.post_attention_layernorm(tokens))
    values = (layer.input_layernorm.weight[:, None] * layer.self_attn.v_proj.weight.T)[:, 4:8]  # kv head 1
    writes = layer.self_attn.o_proj.weight.T[12:16]  # head 3, of kv head 1
    unembed = lm.hf.lm_head.weight * lm.hf.model.norm.weight
    whole = tokens @ values @ writes @ (unembed - unembed.mean(dim=0)).T  # [40 40]
    large = torch.linalg.eigvals(whole)
    circuit = list(head_circuits(lm, token_space(lm, embedding)))[4 + 3]  # type: ignore[arg-type]
    small = torch.linalg.eigvals(circuit.writes @ circuit.space.across @ circuit.values)
    largest = large[large.abs().argsort(descending=True)[:4]]
    ratio = largest[0].abs() / small.abs().max()  # circuits are known up to one factor
    assert torch.allclose(small.abs().sort().values * ratio, largest.abs().sort().values, rtol=1e-4)
    assert float(large.abs().sort().values[:-4].max()) < 1e-8 * float(largest.abs().max())
    expected = float(large.real.sum() / large.abs().sum())
    assert abs(float(large.imag.sum())) < 1e-6 * float(large.abs().sum())
    every = torch.arange(40)
    found = copying_scores(lm, every, embedding)  # type: ignore[arg-type]
    assert float(found.eigenvalue[1, 3]) == pytest.approx(expected, abs=1e-4)
    own = whole.diagonal()
    top5 = (whole >= own[:, None]).sum(dim=1) <= 5
    assert float(found.top5[1, 3]) == pytest.approx(float(top5.double().mean()), abs=1e-6)
    z = (own - whole.mean(dim=1)) / whole.std(dim=1, correction=0)
    assert float(found.z[1, 3]) == pytest.approx(float(z.mean()), abs=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma", "granite"])
def test_effective_embeddings_add_what_the_first_mlp_makes_of_an_embedding(name: str) -> None:
    lm = LanguageModel(tiny(name, torch.float64), name, None, "cpu")
    stored = lm.hf.get_input_embeddings().weight.double()
    scale = {"gemma": 4.0, "granite": float(getattr(lm.hf.config, "embedding_multiplier", 1.0))}.get(name, 1.0)
    plain, effective = (token_space(lm, kind).embedding for kind in ("plain", "effective"))  # type: ignore[arg-type]
    assert torch.allclose(plain, stored * scale, rtol=1e-4)
    blocks = {
        "gpt2": lambda block, x: block.mlp(block.ln_2(x)),
        "gpt_neox": lambda block, x: block.mlp(block.post_attention_layernorm(x)),
        "gemma": lambda block, x: block.mlp(block.post_attention_layernorm(x)),
        "granite": lambda block, x: block.mlp(block.post_attention_layernorm(x)) * lm.hf.config.residual_multiplier,
    }
    assert lm.structure is not None
    added = blocks[name](lm.structure.parts[0].layer, plain[None])[0]
    if name == "gpt2":  # the output bias of attention is no part of an MLP's answer
        lm.structure.parts[0].attention.c_proj.bias[:] = 1.0
        assert torch.equal(token_space(lm, "effective").embedding, effective)
    assert torch.allclose(effective, plain + added, atol=1e-5 * float(plain.abs().max()))


def test_a_copying_head_copies_no_other_token() -> None:
    tokens = torch.arange(4)
    space = token_space(planted(EYE))
    other = space.with_other_targets(seed=0)
    assert sorted(other.unembed.tolist()) == sorted(space.unembed.tolist())
    assert not bool((other.unembed == space.unembed).all(dim=1).any())
    found = scores_of_circuits(planted(EYE), lambda circuit: own_rows(circuit, tokens).z.mean(), control="random_pairs")
    assert abs(float(found[HEAD])) < 4


def test_random_directions_keep_the_singular_values_and_lose_the_copying() -> None:
    lm = LanguageModel(tiny("llama", torch.float64), "llama", None, "cpu")
    circuit = list(head_circuits(lm, token_space(lm)))[5]
    drawn = circuit.with_random_weights(torch.Generator().manual_seed(0))
    before, after = (torch.linalg.svdvals(each.values @ each.writes) for each in (circuit, drawn))
    assert torch.allclose(before, after, atol=1e-10)
    assert float((circuit.values @ circuit.writes - drawn.values @ drawn.writes).abs().max()) > 1e-3
    probe, scores = probes.get("copying_score"), []
    for seed in range(40):
        found = measure(probe, {"control": "random_weights"}, PROMPTS, lm=planted(EYE), probe_seed=seed)["scores"]
        scores.append(float(found[HEAD]))
    assert abs(sum(scores)) / 40 < 0.3  # the planted head itself has 1
    assert max(scores) < 1


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save(copy_model(), tmp_path_factory.mktemp("planted")))


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_planted_induction_head_copies_and_no_other_head_has_a_score(copier: LanguageModel, embedding: str) -> None:
    others = torch.ones(2, 4, dtype=torch.bool)
    others[INDUCTION_HEAD] = False
    expected = {"eigenvalue": 1.0, "top5": 1.0, "z": 127**0.5}  # one 1 among 128: (1 - 1/128) / sqrt(127 / 128**2)
    for measure_name, name in PROBES.items():
        found = measure(probes.get(name), {"embedding": embedding}, PROMPTS, lm=copier)["scores"]
        assert float(found[INDUCTION_HEAD]) == pytest.approx(expected[measure_name], abs=1e-3)
        assert bool(found[others].isnan().all())
        null = measure(probes.get(name), {"control": "random_pairs"}, PROMPTS, lm=copier)["scores"]
        assert abs(float(null[INDUCTION_HEAD])) < 0.1 * expected[measure_name]


def test_probes_give_what_the_function_gives() -> None:
    lm = LanguageModel(tiny("qwen2"), "qwen2", None, "cpu")
    scores = copying_scores(lm, tokens_of(40, 12, seed=3))
    for measure_name, name in PROBES.items():
        given = {} if measure_name == "eigenvalue" else {"n_tokens": 12}
        found = measure(probes.get(name), given, PROMPTS, lm=lm, probe_seed=3)["scores"]
        assert torch.equal(found, getattr(scores, measure_name))


def test_tokens_are_drawn_once_each_and_all_where_there_are_few() -> None:
    assert torch.equal(tokens_of(9, 512, seed=1), torch.arange(9))
    drawn = tokens_of(1000, 50, seed=1)
    assert len(drawn.unique()) == 50
    assert not torch.equal(drawn, tokens_of(1000, 50, seed=2))


@pytest.mark.parametrize(("name", "sentence"), [("gemma2", "norms what its heads write"), ("bloom", "only behavior")])
def test_models_without_fixed_circuits_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(NotApplicable, match=sentence):
        copying_scores(LanguageModel(tiny(name), name, None, "cpu"), torch.arange(4))


def test_embeddings_that_the_model_changes_are_refused() -> None:
    hf = tiny("gpt2")
    hf.transformer.wte.register_forward_hook(lambda _, __, output: torch.tanh(40 * output))
    with pytest.raises(NotApplicable, match="does more than scale its embeddings"):
        copying_scores(LanguageModel(hf, "gpt2", None, "cpu"), torch.arange(4))


def test_unknown_words_and_tokens_are_refused() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    probe = probes.get("copying_top5")
    for parameters, sentence in (
        ({"embedding": "whole"}, "choose one of plain, effective"),
        ({"control": "shuffled"}, "choose one of none, random_pairs, random_weights"),
        ({"n_tokens": 0}, "copying_top5.n_tokens is 0"),
    ):
        with pytest.raises(BadInput, match=sentence):
            measure(probe, parameters, PROMPTS, lm=lm)
    with pytest.raises(BadInput, match="reads the weights: give it a model"):
        measure(probe, {}, PROMPTS)
    with pytest.raises(BadInput, match=r"does not score heads on prompts but measures the weights"):
        head_scores(lm, torch.ones(1, 4, dtype=torch.int64), "copying_score")
    for tokens in (torch.tensor([3, 40]), torch.tensor([-1]), torch.empty(0, dtype=torch.int64)):
        with pytest.raises(BadInput, match=r"tokens must be ids \[token\] in 0..39"):
            copying_scores(lm, tokens)


def test_a_saved_model_has_the_scores_of_the_model_that_was_saved(tmp_path: Path) -> None:
    hf = tiny("stablelm")
    hf.save_pretrained(tmp_path / "model")
    saved, fresh = load_model(tmp_path / "model"), LanguageModel(hf, "stablelm", None, "cpu")
    every = torch.arange(40)
    assert torch.equal(copying_scores(saved, every).z, copying_scores(fresh, every).z)
