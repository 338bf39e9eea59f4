"""Void layers while reading and answering, and accuracy without them, on a tiny model of four layers."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mneme.batch import Batch
from mneme.capturing import capture
from mneme.errors import BadInput, NotApplicable
from mneme.layer_skipping import norm_changes, void_layers_of
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.probes.void_skipping import ways_to_skip
from mneme.promptset import Promptset
from tests.architectures import LLAMA, tiny

IDS = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([9, 6, 8])


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(0)
    config = LlamaConfig(**(LLAMA | {"num_hidden_layers": 4, "initializer_range": 0.3}))
    return LanguageModel(LlamaForCausalLM(config).eval(), "four", None, "cpu")


@pytest.fixture(scope="module")
def prompts():
    return Promptset(Batch(IDS, LENGTHS), facts={"offset": 1, "bos_mode": "native"})


def curves(name, prompts, lm, **parameters):
    found = measure(probes.get(name), parameters, prompts, lm=lm)
    return {key.split(".")[1]: value for key, value in found.items() if key.endswith(".values")}


def test_shares_of_prompt_and_response_are_those_of_each_text_run_alone(lm, prompts):
    found = curves("void_layers", prompts, lm, n_response=4)
    for item, length in enumerate(LENGTHS.tolist()):
        text = lm.hf.generate(IDS[item : item + 1, :length], do_sample=False, min_new_tokens=4, max_new_tokens=4)
        void = void_layers_of(norm_changes(capture(lm, text, ["residual"])["residual"]), 0.8)[0].float()
        torch.testing.assert_close(found["void_in_prompt"][item], void[1:length].mean(dim=0))
        torch.testing.assert_close(found["void_in_response"][item], void[length:].mean(dim=0))


def test_without_a_response_only_the_prompt_is_measured(lm, prompts):
    found = curves("void_layers", prompts, lm, n_response=0)
    assert bool(found["void_in_response"].isnan().all())
    assert found["void_in_prompt"][:, 0].tolist() == [0, 0, 0]


def test_a_response_ends_with_the_context(lm, prompts):
    long = Promptset(Batch.of(IDS.repeat(1, 7)), facts=prompts.facts)  # 63 of 64 tokens
    one, many = (curves("void_layers", long, lm, n_response=n)["void_in_response"] for n in (1, 5))
    torch.testing.assert_close(one, many)


def test_as_many_layers_are_skipped_in_every_way():
    void = torch.tensor([[[False, True, True, False], [False, False, False, False]]])
    drawn = torch.tensor([[[0.1, 0.9, 0.8, 0.2], [0.1, 0.2, 0.3, 0.4]]])
    relative = torch.tensor([[[9.0, 1.0, 7.0, 2.0], [1.0, 1.0, 1.0, 1.0]]])
    ways = ways_to_skip(void, drawn, relative)
    assert [way[0, 0].tolist() for way in ways] == [
        [False, True, True, False],
        [True, False, False, True],
        [False, True, False, True],
        [True, True, False, False],
        [False, False, True, True],
    ]
    assert not any(bool(way[0, 1].any()) for way in ways)


def test_with_answers_the_answer_counts_and_without_them_every_next_token(lm, prompts):
    logits = lm.logits(prompts.clean)[torch.arange(3), LENGTHS - 1]
    answered = Promptset(prompts.clean, correct_ids=logits.argmax(dim=1, keepdim=True), facts=prompts.facts)
    found = curves("void_skipping", answered, lm, alphas=[0.001, 0.8])
    assert found["share_active"][:, 0].tolist() == [1, 1, 1]
    assert found["accuracy_without_void"][:, 0].tolist() == [1, 1, 1]
    assert found["accuracy_change"][:, 0].tolist() == [0, 0, 0]
    void = void_layers_of(norm_changes(capture(lm, prompts.clean, ["residual"])["residual"]), 0.8)
    active = [1 - float(void[item, :length].float().mean()) for item, length in enumerate(LENGTHS.tolist())]
    assert found["share_active"][:, 1].tolist() == pytest.approx(active)
    top1 = curves("void_skipping", prompts, lm, alphas=[0.001])["accuracy_without_void"][:, 0]
    hits = lm.logits(prompts.clean).argmax(dim=-1)[:, :-1] == IDS[:, 1:]
    expected = [float(hits[item, : length - 1].float().mean()) for item, length in enumerate(LENGTHS.tolist())]
    assert top1.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("void_layers", {"alpha": 0}, "alpha"),
        ("void_layers", {"n_response": -1}, "n_response"),
        ("void_skipping", {"alphas": []}, "list of thresholds"),
        ("void_skipping", {"alphas": [0.5, 2]}, "alpha is 2"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(lm, prompts, name, parameters, message):
    with pytest.raises(BadInput, match=message):
        measure(probes.get(name), parameters, prompts, lm=lm)


@pytest.mark.parametrize("name", ["void_layers", "void_skipping"])
def test_a_model_of_three_layers_is_too_shallow(prompts, name):
    with pytest.raises(NotApplicable, match="4 at least"):
        measure(probes.get(name), {}, prompts, lm=LanguageModel(tiny("llama"), "llama", None, "cpu"))
