"""Curves of sinks and of massive activations on planted and tiny models."""

import pytest
import torch

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import head_scores, measure
from mneme.model import LanguageModel, load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.patterns import harmonic
from tests.planted import FIRST_ID, save, uniform_model

N_TOKENS = 64


def prompts_of(vocabulary, n_items=3, n_tokens=N_TOKENS, first=0):
    body = torch.randint(1, vocabulary - 1, (n_items, n_tokens - 1), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((n_items, 1), first), body], dim=1)
    return Promptset(Batch.of(ids), facts={"bos_mode": "eot_as_bos", "offset": 1})


def curves(name, prompts, lm, **parameters):
    found = measure(probes.get(name), parameters, prompts, lm=lm)
    return {key.split(".")[1]: value for key, value in found.items() if key.endswith(".values")}


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory):
    return load_model(save(uniform_model(), tmp_path_factory.mktemp("uniform")))


def test_uniform_attention_rests_on_each_key_by_the_harmonic_rule_and_sinks_nowhere(unmoved):
    found = curves("sink_by_position", prompts_of(128, first=FIRST_ID), unmoved, n_keys=64)
    expected = [(harmonic(64) - harmonic(key)) / (64 - key) for key in range(64)]
    torch.testing.assert_close(found["key_importance"][0], torch.tensor(expected).float(), atol=1e-6, rtol=1e-5)
    assert float(found["sink_share"].max()) == 0


def test_the_first_key_is_what_the_sink_probe_of_heads_gives():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    prompts = prompts_of(40, n_tokens=20)
    heads = head_scores(lm, prompts, "first_token_sink")
    found = curves("sink_by_position", prompts, lm, eps=0.2)
    torch.testing.assert_close(found["key_importance"][:, 0], heads.mean(dim=(1, 2)), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found["sink_share"][:, 0], (heads > 0.2).float().mean(dim=(1, 2)))


def test_a_stream_that_nothing_moves_has_no_sink_and_nothing_massive(unmoved):
    prompts = prompts_of(128, first=FIRST_ID)
    found = curves("massive_activations", prompts, unmoved)
    assert float(found["massive"].max()) == 0
    assert found["top_value"].unique().tolist() == [1]
    assert found["median_value"].unique().tolist() == [0]
    assert float(curves("sink_tokens", prompts, unmoved)["sink_tokens"].max()) == 0
    torch.testing.assert_close(curves("residual_peak", prompts, unmoved)["residual_peak"], torch.ones(3, 3))


def planted_stream(lm, at, layer, size):
    """Hook that gives a token of every prompt a large number at what enters a layer."""

    def enter(_, args, options):
        states = (args[0] if args else options["hidden_states"]).clone()
        states[:, at, 5] += size
        return ((states, *args[1:]), options) if args else (args, options | {"hidden_states": states})

    return lm.structure.parts[layer].layer.register_forward_pre_hook(enter, with_kwargs=True)


def test_a_planted_massive_activation_is_found_where_it_stands():
    lm = LanguageModel(tiny("llama"), "llama", None, "cpu")
    hook = planted_stream(lm, 3, 1, 5000.0)  # stands in what layer 1 computes with, and in all that comes after
    found = curves("massive_activations", prompts_of(40, n_tokens=20), lm)
    hook.remove()
    assert found["massive"][:, 2:].tolist() == [[1, 1]] * 3
    assert found["top_position"][:, 2:].unique().tolist() == [3]
    assert found["top_dimension"][:, 2:].unique().tolist() == [5]
    assert float(found["top_value"][:, 2:].min()) > 4000


def test_the_first_token_s_peak_is_the_ratio_of_norms():
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    prompts = prompts_of(40, n_tokens=20)
    norms = capture(lm, prompts.clean, ["residual"])["residual"].norm(dim=-1)
    expected = norms[:, :, 0] / norms[:, :, 1:].mean(dim=2)
    torch.testing.assert_close(curves("residual_peak", prompts, lm)["residual_peak"], expected)


def test_a_token_that_copies_the_first_one_s_stream_is_a_sink_with_its_attention():
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    prompts = prompts_of(40, n_tokens=20)

    def enter(_, args):
        states = args[0].clone()
        states[:, 0] *= 50
        states[:, 7] = states[:, 0] / 5
        return (states, *args[1:])

    hook = lm.structure.parts[1].layer.register_forward_pre_hook(enter)
    inputs = capture(lm, prompts.clean, ["attention_inputs"]).attention_inputs
    found = curves("sink_tokens", prompts, lm)
    hook.remove()
    assert found["sink_tokens"][:, :2].tolist() == [[0, 1]] * 3
    total = sum(found[name] for name in ("primary_like", "secondary", "noise"))
    torch.testing.assert_close(total, found["sink_tokens"])
    assert found["sinks_started"][:, 1].tolist() == [1] * 3
    torch.testing.assert_close(found["sinks_started"].sum(dim=1), found["sinks_by_lifetime"].sum(dim=1))
    alpha = inputs[1].rows(torch.arange(20))[:, :, 7:, 7].mean(dim=(1, 2))
    torch.testing.assert_close(found["sink_token_attention"][:, 1], alpha, atol=1e-6, rtol=1e-4)
    written = capture(lm, prompts.clean, ["mlp_out"])["mlp_out"][:, 0, 7].norm(dim=-1)
    torch.testing.assert_close(found["mlp_norm_at_start"][:, 1], written, atol=1e-6, rtol=1e-4)
    assert bool(found["mlp_norm_at_start"][:, 0].isnan().all())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("massive_activations", {"absolute": "100"}, "absolute"),
        ("massive_activations", {"ratio": -1}, "ratio"),
        ("massive_activation_ablation", {"ks": []}, "list of sizes"),
        ("massive_activation_ablation", {"ks": [9]}, "from 1 to 8"),
        ("massive_activation_ablation", {"layer": 3}, "from 1 to 2"),
        ("sink_tokens", {"threshold": 1.0}, "threshold"),
        ("sink_by_position", {"eps": 1}, "eps"),
        ("sink_by_position", {"n_keys": 0}, "n_keys"),
        ("active_dormant", {"least_attention": 2}, "least_attention"),
        ("active_dormant", {"most_loss": None}, "most_loss"),
        ("active_dormant", {"control": "random"}, "choose one of none, other_heads"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(name, parameters, message):
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    with pytest.raises(BadInput, match=message):
        measure(probes.get(name), parameters, prompts_of(40, n_tokens=20), lm=lm)


@pytest.mark.parametrize("name", ["sink_tokens", "sink_by_position", "massive_activation_ablation"])
def test_prompts_under_sixteen_tokens_are_refused(name):
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    with pytest.raises(NotApplicable, match="16 tokens"):
        measure(probes.get(name), {}, prompts_of(40, n_tokens=15), lm=lm)
