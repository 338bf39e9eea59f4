"""A planted active-dormant head (METHODS 18): where it rests, and what is lost without it; then the slow reference."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput, NotApplicable
from mneme.head_losses import first_token_attention, loss_changes
from mneme.key_importance import key_importance
from mneme.measuring import head_scores, measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.scoring import token_scores
from tests.architectures import tiny
from tests.patterns import harmonic, uniform
from tests.planted import FIRST_ID, back_copying_model, save

TRIGGERS = (0, 1, 2)
N_TOKENS = 20
BATCH = Batch(torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.tensor([9, 6, 8]))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(save(back_copying_model(TRIGGERS), tmp_path_factory.mktemp("planted")))


def told(start):
    """The first token, then `start` and what follows by the rule: t + 1, but after a trigger the token before it."""
    ids = [FIRST_ID, start]
    while len(ids) < N_TOKENS:
        ids.append(ids[-2] if ids[-1] in TRIGGERS else (ids[-1] + 1) % FIRST_ID)
    return ids


def domain(*starts):
    return Promptset(Batch.of(torch.tensor([told(start) for start in starts])), facts={"bos_mode": "eot_as_bos"})


PLAIN, TRIGGERING = domain(10, 40, 70), domain(115, 118, 121)


def test_the_planted_rule_leaves_no_loss_on_either_kind_of_row(planted):
    for prompts in (PLAIN, TRIGGERING):
        log_prob = token_scores(planted, prompts.clean).log_prob[:, 1:-1]  # the start of a prompt is free
        assert float(log_prob.abs().max()) < 1e-3


def test_the_head_rests_where_there_is_no_trigger_and_nothing_is_lost_without_it(planted):
    attention, changes = first_token_attention(planted, PLAIN.clean), loss_changes(planted, PLAIN.clean, "zero")
    torch.testing.assert_close(attention[:, 0, 0], torch.ones(3))
    assert float(changes[:, 0, 0].abs().max()) < 1e-4


def test_among_triggers_it_wakes_and_costs_what_the_bigram_loses_on_copied_tokens(planted):
    ids = TRIGGERING.clean.ids
    is_trigger = torch.isin(ids, torch.tensor(TRIGGERS))
    attention = first_token_attention(planted, TRIGGERING.clean)[:, 0, 0]
    torch.testing.assert_close(attention, 1 - is_trigger.float().mean(dim=1), atol=1e-4, rtol=0)
    bigram = back_copying_model(TRIGGERS)
    with torch.no_grad():
        bigram.transformer.h[0].attn.c_proj.weight.zero_()
        log_probs = torch.log_softmax(bigram(ids).logits.float(), dim=-1)[:, :-1]
    losses = -log_probs.gather(2, ids[:, 1:, None])[..., 0]
    expected = (losses * is_trigger[:, :-1]).sum(dim=1) / (N_TOKENS - 1)
    assert float(expected.min()) > 0.5
    for kind in ("zero", "to_first"):  # the first token's value is 0
        changes = loss_changes(planted, TRIGGERING.clean, kind)
        torch.testing.assert_close(changes[:, 0, 0], expected, atol=1e-3, rtol=1e-3)
        assert float(changes[:, 1].abs().max()) < 1e-4


def test_it_is_dormant_on_the_one_domain_and_active_on_the_other(planted):
    probe = probes.get("active_dormant")
    assert measure(probe, {}, PLAIN, lm=planted)["scores"][:, 0, 0].tolist() == [1, 1, 1]
    assert measure(probe, {}, TRIGGERING, lm=planted)["scores"][:, 0, 0].tolist() == [0, 0, 0]
    assert measure(probe, {}, PLAIN, lm=planted)["scores"][:, 0, 1:].max() == 0  # attends uniformly


def test_its_control_zeroes_the_other_heads_of_the_layer_where_it_rests(planted):
    probe = probes.get("active_dormant")
    control = measure(probe, {"control": "other_heads"}, PLAIN, lm=planted)["scores"]
    assert control[:, 0, 0].tolist() == [1, 1, 1], "the other planted heads write nothing"
    assert control[:, 0, 1:].max() == 0, "they do not rest"
    assert measure(probe, {"control": "other_heads"}, TRIGGERING, lm=planted)["scores"][:, 0, 0].tolist() == [0, 0, 0]


def test_its_control_is_the_mean_over_other_heads_of_whether_the_loss_stays():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    ids = torch.randint(3, 40, (4, 20), generator=torch.Generator().manual_seed(1))
    prompts = Promptset(Batch.of(ids), facts={"bos_mode": "native", "offset": 1})
    changes, attention = loss_changes(lm, prompts.clean, "zero"), first_token_attention(lm, prompts.clean)
    most, least = float(changes.abs().median()), float(attention.median())
    given = {"control": "other_heads", "most_loss": most, "least_attention": least}
    found = measure(probes.get("active_dormant"), given, prompts, lm=lm)["scores"]
    for item, layer, head in torch.cartesian_prod(*(torch.arange(size) for size in changes.shape)).tolist():
        others = [abs(float(changes[item, layer, each])) < most for each in range(lm.n_heads) if each != head]
        share = sum(others) / len(others) if float(attention[item, layer, head]) > least else 0.0
        assert float(found[item, layer, head]) == pytest.approx(share)
    assert 0 < float(found.mean()) < 1


def test_a_head_alone_in_its_layer_has_no_control():
    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    lm = LanguageModel(GPT2LMHeadModel(config).eval(), "one", None, "cpu")
    prompts = Promptset(Batch.of(torch.arange(3, 23)[None]), facts={"bos_mode": "native"})
    found = measure(probes.get("active_dormant"), {"control": "other_heads"}, prompts, lm=lm)["scores"]
    assert found.isnan().all()


def test_its_value_at_the_first_token_is_drained(planted):
    found = measure(probes.get("value_drain"), {}, PLAIN, lm=planted)["scores"]
    assert float(found[:, 0, 0].max()) < 1e-6
    assert bool(found[:, 0, 1:].isnan().all())  # heads without values have no ratio


def test_attention_to_the_first_token_is_the_first_column_of_the_sinks():
    lm = LanguageModel(tiny("gemma2"), "gemma2", None, "cpu")
    torch.testing.assert_close(first_token_attention(lm, BATCH), head_scores(lm, BATCH, "first_token_sink"))


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_heads_that_share_values_are_changed_as_a_hook_on_the_output_projection_changes_them(name):
    lm = LanguageModel(tiny(name), name, None, "cpu")
    found = {kind: loss_changes(lm, BATCH, kind) for kind in ("zero", "to_first")}
    clean = losses(lm)
    width, per_group = lm.head_width, lm.n_heads // lm.n_kv_heads
    for layer, head in ((0, 0), (1, 3), (2, 1)):
        attention = lm.structure.parts[layer].attention
        first = {}

        def keep(_, __, output, first=first):
            first["value"] = output[:, 0]

        for kind in found:

            def change(_, args, kind=kind, head=head, first=first):
                z = args[0].clone()
                group = head // per_group
                value = first["value"][:, None, group * width : (group + 1) * width]
                z[..., head * width : (head + 1) * width] = 0 if kind == "zero" else value
                return (z,)

            hooks = [attention.v_proj.register_forward_hook(keep), attention.o_proj.register_forward_pre_hook(change)]
            expected = losses(lm) - clean
            for hook in hooks:
                hook.remove()
            torch.testing.assert_close(found[kind][:, layer, head], expected, atol=2e-5, rtol=1e-3)


def losses(lm):
    return -token_scores(lm, BATCH).log_prob.nanmean(dim=1)


def test_uniform_attention_gives_every_key_its_harmonic_share():
    alpha = key_importance(uniform(64))[0, 0]
    expected = [(harmonic(64) - harmonic(key)) / (64 - key) for key in range(64)]
    torch.testing.assert_close(alpha, torch.tensor(expected, dtype=alpha.dtype), atol=1e-6, rtol=1e-5)
    assert float(alpha[-1]) == pytest.approx(1 / 64)


def test_padding_and_a_window_leave_out_the_rows_that_cannot_see_a_key():
    lm = LanguageModel(tiny("mistral"), "mistral", None, "cpu")
    inputs = capture(lm, BATCH, ["attention_inputs"]).attention_inputs[1]
    rows = inputs.rows(torch.arange(9)).nan_to_num(0.0)
    for item, length in enumerate(BATCH.lengths.tolist()):
        for key in range(length):
            seeing = rows[item, :, key : min(length, key + inputs.window), key]
            torch.testing.assert_close(key_importance(inputs)[item, :, key], seeing.mean(dim=1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["active_dormant", "value_drain", "residual_peak", "sink_tokens"])
def test_prompts_without_a_token_in_front_are_refused(planted, name):
    bare = Promptset(PLAIN.clean, facts={"bos_mode": "none"})
    with pytest.raises(NotApplicable, match="have none"):
        measure(probes.get(name), {}, bare, lm=planted)


@pytest.mark.parametrize("name", ["active_dormant", "head_loss_change"])
def test_domains_of_several_lengths_are_refused(planted, name):
    mixed = Promptset(Batch(PLAIN.clean.ids, torch.tensor([20, 19, 20])), facts={"bos_mode": "eot_as_bos"})
    with pytest.raises(NotApplicable, match="prompts of one length"):
        measure(probes.get(name), {}, mixed, lm=planted)


def test_another_kind_of_change_is_refused(planted):
    with pytest.raises(BadInput, match=r"head_loss_change\.kind"):
        measure(probes.get("head_loss_change"), {"kind": "mean"}, PLAIN, lm=planted)
