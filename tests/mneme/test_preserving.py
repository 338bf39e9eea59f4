"""Copy-suppression-preserving ablation: one where a head does nothing else, and the same by loops over every source."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import capture, head_weights
from mneme.errors import BadInput, NotApplicable
from mneme.head_circuits import head_circuits, token_space
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.preserving import Preserved, divergences
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.architectures import tiny

PROBE = probes.get("copy_suppression")
N_TOKENS = 8


@torch.no_grad()
def suppressor() -> LanguageModel:
    """GPT-2 of one layer without norms that predicts the token it reads; head 0 looks for what is predicted, lowers it.

    The residual stream is [token | prediction]; head 1 writes nothing.
    """
    hf = tiny("gpt2", torch.float64, vocab_size=8, n_embd=16, n_head=2, n_layer=1, tie_word_embeddings=False)
    transformer, eye = hf.transformer, torch.eye(8, dtype=torch.float64)
    transformer.ln_f = nn.Identity()
    block = transformer.h[0]
    block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    for parameter in (*block.attn.parameters(), *block.mlp.parameters(), transformer.wpe.weight):
        parameter.zero_()
    transformer.wte.weight[:] = torch.cat([eye, eye], dim=1)
    block.attn.c_attn.weight[8:, :8] = 200 * eye
    block.attn.c_attn.weight[:8, 16:24] = eye
    block.attn.c_attn.weight[:8, 32:40] = eye
    block.attn.c_proj.weight[:8, 8:] = -0.5 * eye
    hf.lm_head.weight[:] = torch.cat([0 * eye, 4 * eye], dim=1)
    return LanguageModel(hf.eval(), "suppressor", None, "cpu")


def shifts() -> Batch:
    """Every shift of all eight tokens: at each position every token stands once."""
    return Batch.of(torch.stack([torch.arange(8).roll(shift) for shift in range(8)]))


def prompts_of(lm: LanguageModel, lengths: tuple[int, ...] = (8, 6, 8, 7)) -> Batch:
    ids = torch.randint(3, lm.vocab_size, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    return Batch(ids, torch.tensor(lengths))


def scores(lm: LanguageModel, batch: Batch, **kept: object) -> Tensor:
    found = divergences(lm, batch, Preserved(**kept))  # type: ignore[arg-type]
    return 1 - found.preserved.double().mean(dim=0) / found.ablated.double().mean(dim=0)


@pytest.mark.parametrize("kept", [{}, {"n_targets": 1, "n_sources": 1}, {"n_targets": 1, "n_sources": None}])
def test_a_head_that_lowers_what_is_predicted_is_all_copy_suppression(kept: dict[str, int]) -> None:
    assert float(scores(suppressor(), shifts(), **kept)[0, 0]) == pytest.approx(1.0, abs=1e-6)


def test_a_head_of_which_other_tokens_than_its_own_are_kept_is_hardly_any() -> None:
    lm = suppressor()
    assert float(scores(lm, shifts(), n_targets=1, n_sources=1, is_random=True)[0, 0]) < 0.5


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen2", "granite", "mistral"])
def test_a_head_left_intact_scores_one_and_its_mean_scores_zero(name: str) -> None:
    lm = LanguageModel(tiny(name), name, None, "cpu")
    batch = prompts_of(lm)
    intact = scores(lm, batch, n_sources=None, is_projected=False)
    torch.testing.assert_close(intact, torch.ones_like(intact), atol=1e-4, rtol=0)
    every = scores(lm, batch, n_sources=100, is_projected=False)
    torch.testing.assert_close(every, intact, atol=1e-4, rtol=0)
    nothing = scores(lm, batch, n_sources=0)
    torch.testing.assert_close(nothing, torch.zeros_like(nothing), atol=1e-4, rtol=0)


def test_targets_that_span_everything_keep_everything() -> None:
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    whole = scores(lm, prompts_of(lm), n_targets=lm.vocab_size, n_sources=None)
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_it_equals_a_loop_over_positions_and_sources(name: str) -> None:
    lm = LanguageModel(tiny(name, torch.float64), name, None, "cpu")
    ids = prompts_of(lm, (7, 7, 7)).ids
    found = divergences(lm, Batch.of(ids), Preserved(n_targets=3, n_sources=2))
    for layer, head in ((0, 1), (1, 2), (2, 3)):
        ablated, preserved = by_loops(lm, ids, layer, head)
        torch.testing.assert_close(found.ablated[:, layer, head].double(), ablated, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found.preserved[:, layer, head].double(), preserved, rtol=1e-3, atol=1e-8)


def by_loops(lm: LanguageModel, ids: Tensor, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """Both divergences [item] of one head, three targets, two sources; written for reading, not for speed."""
    trace = capture(lm, ids, ["attention_rows", "residual", "head_writes"])
    rows, residual = trace["attention_rows"][:, layer, head].double(), trace["residual"]
    norm, parts = lm.structure.final_norm, lm.structure.parts
    out = trace["head_writes"][:, layer, head]
    mean = out.mean(dim=0)
    space = token_space(lm, "effective")
    circuit = list(head_circuits(lm, space))[layer * lm.n_heads + head]
    values = values_of(lm, ids, layer, head)
    weight = head_weights(lm, parts[layer])[head]
    is_layer_norm = isinstance(norm, nn.LayerNorm)
    kl = torch.zeros(2, *ids.shape, dtype=torch.float64)
    for item in range(len(ids)):
        lens = lm.backbone.unembed(norm(residual[item, layer]))
        for query in range(ids.shape[1]):
            kept, predicted = [], []
            for key in range(query + 1):
                raised = space.embedding[ids[item, key]] @ circuit.values @ circuit.writes @ space.unembed.T
                targets = raised.argsort()[:3]
                span = space.unembed[targets]
                span = span - span.mean(dim=1, keepdim=True) if is_layer_norm else span
                basis = torch.linalg.svd(span, full_matrices=False).Vh
                part = rows[item, query, key] * (values[item, key] @ weight - mean[query])
                kept.append(basis.T @ (basis @ part))
                predicted.append(float(lens[query, targets].max()))
            chosen = sorted(range(query + 1), key=lambda key: -predicted[key])[:2]
            changes = (mean[query], mean[query] + sum(kept[key] for key in chosen))
            last = residual[item, -1, query]
            full = torch.log_softmax(lm.backbone.unembed(norm(last[None])), dim=1)
            for at, change in enumerate(changes):
                row = norm((last - out[item, query] + change)[None])
                other = torch.log_softmax(lm.backbone.unembed(row), dim=1)
                kl[at, item, query] = (full.exp() * (full - other)).sum()
    return tuple(kl.mean(dim=2))


def values_of(lm: LanguageModel, ids: Tensor, layer: int, head: int) -> Tensor:
    """Value vectors of one head by the weights of its module: [item key width]."""
    residual, width = capture(lm, ids, ["residual"])["residual"][:, layer], lm.head_width
    if lm.hf.config.model_type == "gpt2":
        block = lm.hf.transformer.h[layer]
        return block.attn.c_attn(block.ln_1(residual)).split(lm.d_model, dim=2)[2][
            :, :, head * width : (head + 1) * width
        ]
    block, group = lm.hf.model.layers[layer], head * lm.n_kv_heads // lm.n_heads
    return block.self_attn.v_proj(block.input_layernorm(residual))[:, :, group * width : (group + 1) * width]


def test_padding_and_batches_of_prompts_change_nothing() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    batch = prompts_of(lm)
    together = divergences(lm, batch, Preserved())
    lm.items_per_forward = {8: 1}
    apart = divergences(lm, batch, Preserved())
    torch.testing.assert_close(together.preserved, apart.preserved, atol=1e-7, rtol=1e-4)


def test_a_head_that_does_nothing_has_no_score() -> None:
    found = measure(PROBE, {"n_targets": 1}, Promptset(shifts()), lm=suppressor())
    assert found["effects"][:, 0, 1].isnan().all()
    assert found["whole"][:, 0, 1].isnan().all()
    share = found["effects"][:, 0, 0].mean() / found["whole"][:, 0, 0].mean()
    assert float(share) == pytest.approx(1.0, abs=1e-5)


def test_what_can_be_kept_is_chosen_by_name() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    batch = prompts_of(lm)
    for given, kept in (
        ({"keep": "ov"}, Preserved(n_sources=None)),
        ({"keep": "qk", "n_sources": 2}, Preserved(n_sources=2, is_projected=False)),
        ({"targets": "random"}, Preserved(is_random=True, seed=3)),
        ({"embedding": "plain"}, Preserved(embedding="plain")),
    ):
        found = measure(PROBE, given, Promptset(batch), lm=lm, probe_seed=3)
        parts = divergences(lm, batch, kept)
        assert torch.equal(found["effects"], parts.ablated - parts.preserved)


def test_prompts_models_and_parameters_that_mean_nothing_are_refused() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    with pytest.raises(NotApplicable, match="give two at least"):
        measure(PROBE, {}, Promptset(prompts_of(lm, (8,))), lm=lm)
    gemma = LanguageModel(tiny("gemma2"), "gemma2", None, "cpu")
    with pytest.raises(NotApplicable, match="norms what its heads write"):
        measure(PROBE, {}, Promptset(prompts_of(gemma)), lm=gemma)
    for parameters, sentence in (
        ({"keep": "half"}, "choose one of both, ov, qk"),
        ({"targets": "own"}, "choose one of suppressed, random"),
        ({"n_targets": 0}, "copy_suppression.n_targets is 0"),
        ({"n_sources": -1}, "copy_suppression.n_sources is -1"),
        ({"embedding": "whole"}, "choose one of plain, effective"),
    ):
        with pytest.raises(BadInput, match=sentence):
            measure(PROBE, parameters, Promptset(prompts_of(lm)), lm=lm)
