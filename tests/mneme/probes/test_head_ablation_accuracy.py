import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.accuracy_readouts import answer_accuracy_readout, copy_accuracy_readout
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptset import Promptset
from mneme.promptsets.repeated_tokens import repeated_tokens
from tests.planted import INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, VOCABULARY, copy_model, save
from tests.references import changed_heads, stock_logits

LOST = probes.get("head_ablation_accuracy")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(save(copy_model(), tmp_path_factory.mktemp("planted")))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0)
    return load_model(save(GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("small")))


def answered(n_items=24):
    """Random prompts, each with two right answers and three wrong ones, of which some are missing."""
    generator = torch.Generator().manual_seed(2)
    correct = torch.randint(0, 20, (n_items, 2), generator=generator)
    wrong = torch.randint(20, 50, (n_items, 3), generator=generator)
    correct[::2, 1], wrong[1::3, 1:] = -1, -1
    ids = torch.randint(1, 50, (n_items, 12), generator=generator)
    return Promptset(Batch.of(ids), correct_ids=correct, wrong_ids=wrong)


def test_without_its_copying_heads_the_planted_model_copies_nothing(planted):
    prompts = repeated_tokens(VOCABULARY, seed=0, n_items=4, period=12)
    ranking = measure(probes.get("induction"), {}, prompts, lm=planted)["scores"]
    parameters = {"outcome": "copy_accuracy", "kind": "zero", "ks": [1, 2]}
    found = measure(LOST, parameters, prompts, lm=planted, ranking=ranking)
    assert found["clean"].tolist() == [1.0] * 4
    assert found["top_heads"][0].tolist() == list(INDUCTION_HEAD)
    tested = ~found["set_effects"][:, 0].isnan()
    assert found["set_effects"][tested].tolist() == [[1.0, 1.0]] * 2  # all tokens tie: no credit
    assert float(found["control_effects"][tested, 0, :3].abs().max()) == 0
    lost = found["effects"].mean(dim=0)
    expected = torch.zeros(2, 4)
    expected[INDUCTION_HEAD] = expected[PREVIOUS_TOKEN_HEAD] = 1.0
    torch.testing.assert_close(lost, expected, atol=0.1, rtol=0)  # an ablated model copies a token now and then


def test_the_clean_accuracies_are_those_of_the_behavior_probes(small):
    prompts = answered()
    found = measure(LOST, {"ks": [1]}, prompts, lm=small, ranking=torch.rand(24, 2, 4))["clean"]
    said = measure(probes.get("answer_accuracy"), {}, prompts, lm=small)["values"]
    assert 0 < float(said.mean()) < 1
    assert torch.equal(found.float(), said.float())
    copies = repeated_tokens(VOCABULARY, seed=0, n_items=40, period=8)
    copies = Promptset(Batch.of(copies.clean.ids % 50), facts=copies.facts)
    found = measure(LOST, {"ks": [1], "outcome": "copy_accuracy"}, copies, lm=small, ranking=torch.rand(40, 2, 4))
    said = measure(probes.get("copy_accuracy"), {}, copies, lm=small)["values"]
    torch.testing.assert_close(found["clean"].float(), said.float())


def test_what_is_lost_is_what_a_plain_hook_loses(small):
    prompts = answered()
    ranking = torch.zeros(24, 2, 4)
    ranking[:, 1, 3] = 1.0
    found = measure(LOST, {"ks": [1], "kind": "zero"}, prompts, lm=small, ranking=ranking)

    def change(layer, z):
        if layer == 1:
            z[:, :, 3] = 0
        return z

    def right(logits):
        rows = zip(logits[:, -1], prompts.correct_ids.tolist(), prompts.wrong_ids.tolist(), strict=True)
        return torch.tensor(
            [max(row[i] for i in good if i >= 0) > max(row[i] for i in bad if i >= 0) for row, good, bad in rows]
        )

    with torch.no_grad():
        clean = right(stock_logits(small, prompts.clean))
        with changed_heads(small, change):
            lost = clean.float() - right(stock_logits(small, prompts.clean)).float()
    assert float(lost.abs().sum()) > 0
    assert torch.equal(found["effects"][:, 1, 3].float(), lost)
    tested = ~found["set_effects"][:, 0].isnan()
    assert torch.equal(found["set_effects"][tested, 0], lost[tested])


def test_ties_are_no_credit():
    prompts = Promptset(
        Batch.of(torch.tensor([[1, 2, 1, 2]])),
        correct_ids=torch.tensor([[1]]),
        wrong_ids=torch.tensor([[2]]),
        facts={"period": 2, "offset": 0},
    )
    answer = answer_accuracy_readout(prompts, "it")
    assert answer(torch.tensor([[0.0, 5.0, 5.0]])).tolist() == [0]
    assert answer(torch.tensor([[9.0, 5.0, 4.0]])).tolist() == [1]
    copied = copy_accuracy_readout(prompts, "it").value
    at = (torch.tensor([0]), torch.tensor([2]))  # the last token but one predicts token 2
    assert copied(torch.tensor([[0.0, 5.0, 5.0]]), *at).tolist() == [0]
    assert copied(torch.tensor([[0.0, 4.0, 5.0]]), *at).tolist() == [1]


def test_an_unknown_outcome_and_prompts_without_answers_or_copies_are_refused(small):
    bare = Promptset(Batch.of(torch.ones(4, 8, dtype=torch.int64)))
    with pytest.raises(BadInput, match="outcome is 'loss': choose one of answer_accuracy, copy_accuracy"):
        measure(LOST, {"outcome": "loss"}, bare, lm=small, ranking=torch.rand(4, 2, 4))
    with pytest.raises(NotApplicable, match="correct and wrong answers"):
        measure(LOST, {"ks": [1]}, bare, lm=small, ranking=torch.rand(4, 2, 4))
    with pytest.raises(NotApplicable, match="copy_accuracy needs prompts with a known period"):
        measure(LOST, {"ks": [1], "outcome": "copy_accuracy"}, bare, lm=small, ranking=torch.rand(4, 2, 4))
