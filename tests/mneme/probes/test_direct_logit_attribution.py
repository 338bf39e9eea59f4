"""Direct logit attribution as a probe: a planted head, the formula by hand, and prompts that it does not fit."""

import pytest
import torch

import mneme
from mneme.attribution import direct_logit_attribution as attributed
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.readouts import logit_difference
from tests.architectures import tiny
from tests.planted import FIRST_ID, INDUCTION_HEAD, copy_model, save

DLA = probes.get("direct_logit_attribution")
IDS = torch.randint(3, 40, (4, 9), generator=torch.Generator().manual_seed(0))
CORRECT, WRONG = torch.tensor([[3], [8], [5], [7]]), torch.tensor([[9], [4], [11], [6]])
LENGTHS = torch.tensor([9, 6, 8, 9])


def test_the_head_that_writes_the_answer_makes_the_whole_logit_difference(tmp_path):
    lm = load_model(save(copy_model(), tmp_path))
    body = torch.stack([torch.randperm(FIRST_ID, generator=torch.Generator().manual_seed(each)) for each in range(4)])
    ids = torch.cat([torch.full((4, 1), FIRST_ID), body[:, :12], body[:, :5]], dim=1)
    prompts = Promptset(Batch.of(ids), correct_ids=body[:, 5:6], wrong_ids=body[:, 20:21])
    scores = measure(DLA, {}, prompts, lm=lm)["scores"]
    difference = measure(probes.get("logit_difference"), {}, prompts, lm=lm)["values"]
    assert float(difference.min()) > 5
    torch.testing.assert_close(scores[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]], difference, atol=1e-3, rtol=1e-4)
    scores[:, INDUCTION_HEAD[0], INDUCTION_HEAD[1]] = 0
    assert float(scores.abs().max()) < 1e-4


def test_every_head_of_gpt2_follows_the_formula_in_batches_of_any_size():
    lm = LanguageModel(tiny("gpt2", torch.float64), "gpt2", None, "cpu")
    lm.items_per_forward[9] = 3
    prompts = Promptset(Batch(IDS, LENGTHS), correct_ids=CORRECT, wrong_ids=WRONG)
    found = mneme.head_scores(lm, prompts, "direct_logit_attribution")
    z, final = [], []
    hooks = [
        block.attn.c_proj.register_forward_pre_hook(lambda _, given: z.append(given[0]))
        for block in lm.hf.transformer.h
    ]
    hooks.append(lm.hf.transformer.ln_f.register_forward_pre_hook(lambda _, given: final.append(given[0])))
    with torch.no_grad():
        lm.hf(IDS)
    for hook in hooks:
        hook.remove()
    items, last = torch.arange(4), LENGTHS - 1
    scale = (final[0][items, last].var(dim=-1, unbiased=False) + lm.hf.config.layer_norm_epsilon).sqrt()
    unembed = lm.hf.lm_head.weight[CORRECT[:, 0]] - lm.hf.lm_head.weight[WRONG[:, 0]]
    width = lm.head_width
    for layer, block in enumerate(lm.hf.transformer.h):
        for head in range(lm.n_heads):
            own = slice(head * width, (head + 1) * width)
            write = z[layer][items, last, own] @ block.attn.c_proj.weight[own]
            normed = (write - write.mean(-1, keepdim=True)) / scale[:, None] * lm.hf.transformer.ln_f.weight
            by_hand = (normed * unembed).sum(-1)
            torch.testing.assert_close(found[:, layer, head].double(), by_hand, atol=1e-6, rtol=1e-5)


def test_answers_that_it_cannot_read_are_refused():
    lm = LanguageModel(tiny("gpt2", torch.float32), "gpt2", None, "cpu")
    batch = Batch(IDS, LENGTHS)
    with pytest.raises(NotApplicable, match="has none"):
        measure(DLA, {}, Promptset(batch, correct_ids=CORRECT), lm=lm)
    with pytest.raises(BadInput, match="differ"):
        measure(DLA, {}, Promptset(batch, correct_ids=CORRECT, wrong_ids=CORRECT), lm=lm)
    both = torch.cat([WRONG, CORRECT + 10], dim=1)
    with pytest.raises(BadInput, match="differ"):
        measure(DLA, {}, Promptset(batch, correct_ids=CORRECT + 10, wrong_ids=both), lm=lm)
    with pytest.raises(BadInput, match="wrong answers must be"):
        measure(DLA, {}, Promptset(batch, correct_ids=CORRECT, wrong_ids=torch.full_like(WRONG, -1)), lm=lm)
    with pytest.raises(BadInput, match="not a stored trace"):
        measure(DLA, {}, Promptset(batch, correct_ids=CORRECT, wrong_ids=WRONG), trace={})


def test_several_wrong_answers_count_by_their_mean_as_they_do_in_the_readout():
    lm = LanguageModel(tiny("gpt_neox", torch.float64), "gpt_neox", None, "cpu")
    batch, others = Batch(IDS, LENGTHS), WRONG + 10
    others[1] = -1  # the second prompt has one wrong answer only

    def scores(wrong, items=slice(None)):
        prompts = Promptset(batch.select(items), correct_ids=CORRECT[items], wrong_ids=wrong[items])
        return measure(DLA, {}, prompts, lm=lm)["scores"]

    both, first = scores(torch.cat([WRONG, others], dim=1)), scores(WRONG)
    two = torch.tensor([0, 2, 3])
    torch.testing.assert_close(both[two], (first[two] + scores(others, two)) / 2, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(both[1], first[1], atol=1e-6, rtol=1e-5)
    whole = attributed(lm, batch, CORRECT, torch.cat([WRONG, others], dim=1))["total"]
    last = lm.logits(batch)[torch.arange(4), LENGTHS - 1]
    readout = logit_difference(CORRECT, torch.cat([WRONG, others], dim=1))
    expected = readout(last)
    torch.testing.assert_close(whole.double(), expected.double(), atol=1e-5, rtol=1e-5)


def test_a_shorter_list_of_answers_may_be_filled_up():
    lm = LanguageModel(tiny("gpt2", torch.float32), "gpt2", None, "cpu")
    filled = torch.cat([torch.full_like(CORRECT, -1), CORRECT], dim=1)
    plain, same = (
        measure(DLA, {}, Promptset(Batch(IDS, LENGTHS), correct_ids=each, wrong_ids=WRONG), lm=lm)["scores"]
        for each in (CORRECT, filled)
    )
    assert torch.equal(plain, same)
