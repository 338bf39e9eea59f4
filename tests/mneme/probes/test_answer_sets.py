"""Probes over sets of answers: numbers by hand, models whose answer is known, ties, and corrupt prompts."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.answers import PairedAnswers
from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptset import Promptset, promptsets
from mneme.scores import AnswerScores
from tests.planted import save
from tests.scene_vocabularies import word_vocabulary

NAMES = ("top1_accuracy", "set_accuracy", "probability_difference")
NO_PROMPTS = Promptset(Batch.of(torch.zeros(1, 2, dtype=torch.int64)))


def scores_of(logits, correct, wrong):
    """What the site holds of one row of logits over a whole vocabulary."""
    logits = torch.tensor([logits])
    top, top_id = logits.max(dim=1)
    n_top = (logits == top[:, None]).sum(dim=1)
    return AnswerScores(logits[:, correct], logits[:, wrong], top, top_id, n_top, logits.logsumexp(dim=1))


def value(name, logits, correct, wrong):
    return float(probes.get(name).measure(PairedAnswers(scores_of(logits, correct, wrong), None), NO_PROMPTS))


def unigram_model(folder, bias):
    """A model that says the same after every prompt: logits `bias` over the vocabulary."""
    config = GPT2Config(
        vocab_size=len(bias), n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(torch.eye(8)[0])
        model.transformer.wte.weight[:, 0] = torch.tensor(bias)
    return load_model(save(model, folder))


def test_the_numbers_of_four_tokens_by_hand():
    logits = [float(torch.log(torch.tensor(each))) for each in (0.4, 0.3, 0.2, 0.1)]
    assert value("probability_difference", logits, [1, 2], [0]) == pytest.approx(0.1, abs=1e-6)
    assert value("set_accuracy", logits, [1, 2], [0]) == 1
    assert value("top1_accuracy", logits, [1, 2], [0]) == 0
    assert value("top1_accuracy", logits, [0], [1]) == 1
    assert value("set_accuracy", logits, [0], [1, 2]) == 0
    assert value("set_accuracy", logits, [0], [2, 3]) == 1


def test_equal_probabilities_over_all_years_favour_the_larger_side_by_two_in_a_hundred():
    years = list(range(100))
    assert value("probability_difference", [0.0] * 100, years[51:], years[:51]) == pytest.approx(-0.02, abs=1e-6)
    assert value("set_accuracy", [0.0] * 100, years[51:], years[:51]) == 0
    assert value("set_accuracy", [0.0] * 100, years[50:], years[:50]) == 0  # a tie is no credit
    assert value("set_accuracy", [0.0] * 100, years[49:], years[:49]) == 1


def test_a_tie_at_the_top_is_a_credit_only_among_correct_answers():
    assert value("top1_accuracy", [2.0, 2.0, 0.0], [0], [2]) == 0
    assert value("top1_accuracy", [2.0, 2.0, 0.0], [0, 1], [2]) == 1
    assert value("top1_accuracy", [0.0, 2.0, 2.0], [2], [0]) == 0


def test_answers_that_an_item_does_not_have_count_nothing():
    scores = AnswerScores(
        torch.tensor([[1.0, torch.nan]]),
        torch.tensor([[0.0, 0.0]]),
        torch.tensor([1.0]),
        torch.tensor([0]),
        torch.tensor([1]),
        torch.tensor([[1.0, 0.0, 0.0]]).logsumexp(dim=1),
    )
    found = {name: float(probes.get(name).measure(PairedAnswers(scores, None), NO_PROMPTS)) for name in NAMES}
    share = torch.tensor([1.0, 0.0, 0.0]).softmax(dim=0)
    assert found["probability_difference"] == pytest.approx(float(share[0] - share[1] - share[2]), abs=1e-6)
    assert found["top1_accuracy"] == 1
    assert found["set_accuracy"] == 1


def test_a_unigram_model_gives_its_prior_and_the_same_after_clean_and_corrupt_prompts(tmp_path):
    bias = torch.linspace(-1, 2, 12).tolist()
    lm = unigram_model(tmp_path, bias)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 12, (2, 5, 6), generator=generator)
    correct, wrong = torch.tensor([[11, 3]] * 5), torch.tensor([[10, 9]] * 5)
    prompts = Promptset(Batch.of(ids[0]), corrupt=Batch.of(ids[1]), correct_ids=correct, wrong_ids=wrong)
    prior = torch.tensor(bias).softmax(dim=0)
    expected = {
        "probability_difference": float(prior[[11, 3]].sum() - prior[[10, 9]].sum()),
        "set_accuracy": 0.0,
        "top1_accuracy": 1.0,
    }
    for name, number in expected.items():
        clean, corrupt = (
            measure(probes.get(name), {"prompt": side}, prompts, lm=lm)["values"] for side in ("clean", "corrupt")
        )
        torch.testing.assert_close(clean, torch.full((5,), number), atol=1e-6, rtol=1e-5)
        assert torch.equal(clean, corrupt)


def test_a_model_without_weights_ties_everywhere_and_earns_nothing(tmp_path):
    lm = unigram_model(tmp_path, [0.0] * 100)
    lm.hf.transformer.wte.weight.data.zero_()
    years = torch.arange(100)
    prompts = Promptset(
        Batch.of(torch.zeros(1, 4, dtype=torch.int64)), correct_ids=years[None, 51:], wrong_ids=years[None, :51]
    )
    found = {name: float(measure(probes.get(name), {}, prompts, lm=lm)["values"]) for name in NAMES}
    assert found["probability_difference"] == pytest.approx(-0.02, abs=1e-6)
    assert found["set_accuracy"] == 0
    assert found["top1_accuracy"] == 0


@pytest.mark.parametrize("behavior", ["greater_than", "agreement"])
def test_an_untrained_model_is_at_the_chance_that_the_promptset_says(behavior, tmp_path):
    vocabulary = word_vocabulary(behavior)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocabulary.size, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    lm = load_model(save(GPT2LMHeadModel(config).eval(), tmp_path))
    prompts = promptsets.get(behavior).build(vocabulary, seed=0)
    for name in ("set_accuracy", "top1_accuracy"):
        hits = measure(probes.get(name), {}, prompts, lm=lm)["values"]
        assert float(hits.mean()) == pytest.approx(prompts.facts["chance"][name], abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_corrupt_prompts_that_are_not_there_are_refused(name):
    answers = PairedAnswers(scores_of([1.0, 0.0], [0], [1]), None)
    with pytest.raises(NotApplicable, match="no corrupt prompts"):
        probes.get(name).measure(answers, NO_PROMPTS, prompt="corrupt")
