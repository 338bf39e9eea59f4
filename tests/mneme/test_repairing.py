"""Self-repair: nothing in a linear model, all where a later head undoes the loss, and two roads to one number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mneme.ablation import ablate_head_sets, ablate_heads
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.readouts import logit_difference
from mneme.repairing import Repair, self_repair
from tests.architectures import tiny

PROBE = probes.get("self_repair")
N_ITEMS = 5
CORRECT, WRONG = torch.arange(N_ITEMS)[:, None], torch.arange(N_ITEMS)[:, None] + 10


def pairs(lengths: tuple[int, ...] = (9, 9, 7, 9, 8), seed: int = 0) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 40, (2, N_ITEMS, max(lengths)), generator=generator)
    return Batch(ids[0], torch.tensor(lengths)), Batch(ids[1], torch.tensor(lengths))


def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def repaired(lm: LanguageModel, clean: Batch, corrupt: Batch) -> Repair:
    return self_repair(lm, clean, corrupt, CORRECT, WRONG)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen2", "granite"])
def test_what_is_given_back_is_the_change_of_a_full_run_plus_the_direct_loss(name: str) -> None:
    lm, (clean, corrupt) = model(name), pairs()
    found, readout = repaired(lm, clean, corrupt), logit_difference(CORRECT, WRONG)
    ablated = ablate_heads(lm, clean, readout, "resample", corrupt)
    unchanged = ablate_head_sets(lm, clean, readout, [()])[:, 0]
    torch.testing.assert_close(found.free - found.direct, ablated - unchanged[:, None, None], atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt_neox", "phi"])
def test_heads_of_a_last_parallel_layer_are_repaired_by_the_norm_alone(name: str) -> None:
    found = repaired(model(name), *pairs())
    torch.testing.assert_close(found.frozen[:, -1], torch.zeros_like(found.frozen[:, -1]), atol=1e-9, rtol=0)
    assert float(found.free[:, -1].abs().max()) > 1e-6
    assert float(found.frozen[:, 0].abs().max()) > 1e-6


def test_a_donor_that_is_the_prompt_itself_takes_nothing_away() -> None:
    clean, _ = pairs()
    found = repaired(model("gpt2"), clean, clean)
    for part in (found.direct, found.free, found.frozen):
        torch.testing.assert_close(part, torch.zeros_like(part), atol=1e-9, rtol=0)


@torch.no_grad()
def undone(share: float) -> LanguageModel:
    """GPT-2 without norms and MLPs: head (0, 0) writes its token, head (1, 0) the opposite of `share` of what it wrote.

    Meant for prompts of one token, where every head attends to it alone.
    """
    hf = tiny("gpt2", torch.float64, vocab_size=8, n_embd=16, n_head=4, n_layer=2, tie_word_embeddings=False)
    transformer, eye = hf.transformer, torch.eye(4, dtype=torch.float64)
    transformer.ln_f = nn.Identity()
    for block in transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        for parameter in (*block.attn.parameters(), *block.mlp.parameters()):
            parameter.zero_()
    transformer.wpe.weight.zero_()
    transformer.wte.weight.zero_()
    transformer.wte.weight[:4, :4] = eye
    first, second = (block.attn for block in transformer.h)
    first.c_attn.weight[:4, 32:36] = eye
    first.c_proj.weight[:4, 4:8] = eye
    second.c_attn.weight[4:8, 32:36] = eye
    second.c_proj.weight[:4, 4:8] = -share * eye
    hf.lm_head.weight.zero_()
    hf.lm_head.weight[:4, 4:8] = eye
    return LanguageModel(hf.eval(), "undone", None, "cpu")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_later_head_gives_back_the_share_that_it_undid(share: float) -> None:
    one = torch.ones(2, dtype=torch.int64)
    clean, corrupt = Batch(torch.tensor([[0], [1]]), one), Batch(torch.tensor([[2], [3]]), one)
    found = self_repair(undone(share), clean, corrupt, torch.tensor([[0], [1]]), torch.tensor([[2], [3]]))
    assert found.direct[:, 0, 0].tolist() == pytest.approx([2.0, 2.0])  # +1 becomes -1 on the donor's token
    for given_back in (found.free, found.frozen):
        assert given_back[:, 0, 0].tolist() == pytest.approx([2 * share] * 2)
        assert given_back[:, 1].abs().max() < 1e-9
        assert given_back[:, 0, 1:].abs().max() < 1e-9


def promptset(**changes: Tensor | Batch | None) -> Promptset:
    clean, corrupt = pairs()
    given = {"corrupt": corrupt, "correct_ids": CORRECT, "wrong_ids": WRONG} | changes
    return Promptset(clean, **given)  # type: ignore[arg-type]


def test_the_probe_gives_the_repair_and_the_whole_that_it_is_a_share_of() -> None:
    lm, prompts = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu"), promptset()
    assert prompts.corrupt is not None
    parts = repaired(lm, prompts.clean, prompts.corrupt)
    for norm, expected in (("free", parts.free), ("frozen", parts.frozen)):
        found = measure(PROBE, {"norm": norm}, prompts, lm=lm)
        assert torch.equal(found["effects"], expected)
        assert torch.equal(found["whole"], parts.direct)


def test_prompts_and_models_that_show_no_repair_are_refused() -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    for prompts, sentence in (
        (promptset(corrupt=None), "no corrupt ones"),
        (promptset(correct_ids=None), "this promptset has none"),
    ):
        with pytest.raises(NotApplicable, match=sentence):
            measure(PROBE, {}, prompts, lm=lm)
    with pytest.raises(NotApplicable, match="norms what its heads write"):
        measure(PROBE, {}, promptset(), lm=LanguageModel(tiny("gemma2"), "gemma2", None, "cpu"))
    with pytest.raises(BadInput, match="choose one of free, frozen"):
        measure(PROBE, {"norm": "kept"}, promptset(), lm=lm)
