import re
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

import mneme
from mneme.batch import Batch
from mneme.curve import Curve, CurveFacts
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import Probe, probes
from mneme.promptset import Promptset
from mneme.promptsets.repeated_tokens import repeated_tokens
from mneme.tracing import trace_sites
from tests.patterns import harmonic
from tests.planted import INDUCTION_HEAD, PREVIOUS_TOKEN_HEAD, VOCABULARY, copy_model, save, uniform_model

PERIOD = 40
LABELS = {"key": 2, "value": 3, "question_first": 9, "question": 10}  # those of a scene


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return load_model(save(copy_model(), tmp_path_factory.mktemp("planted")))


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    return load_model(save(uniform_model(), tmp_path_factory.mktemp("uniform")))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0)
    return load_model(save(GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=12,
        bos_token_id=0,
        eos_token_id=0,
    )
    return load_model(save(MistralForCausalLM(config).eval(), tmp_path_factory.mktemp("windowed")))


def prompts(n_items=6, **parameters):
    return repeated_tokens(VOCABULARY, seed=0, n_items=n_items, period=PERIOD, **parameters)


def mean_scores(name, lm, promptset, **parameters):
    return measure(probes.get(name), parameters, promptset, lm=lm)["scores"].mean(dim=0)


@pytest.mark.parametrize(("name", "head"), [("previous_token", PREVIOUS_TOKEN_HEAD), ("induction", INDUCTION_HEAD)])
def test_the_planted_head_scores_one_and_every_other_head_what_uniform_attention_gives(planted, name, head):
    scores = mean_scores(name, planted, prompts())
    n_tokens = 2 * PERIOD + 1
    expected = {
        "previous_token": (harmonic(n_tokens) - 1) / (n_tokens - 1),
        "induction": (harmonic(2 * PERIOD + 1) - harmonic(PERIOD + 1)) / PERIOD,
    }[name]
    assert float(scores[head]) == pytest.approx(1, abs=1e-2)
    uniform_heads = [(layer, each) for layer in range(2) for each in range(1, 4)]
    for other in uniform_heads:
        assert float(scores[other]) == pytest.approx(expected, abs=1e-5)


def test_the_planted_previous_token_head_has_no_induction_and_no_head_looks_at_duplicates(planted):
    assert float(mean_scores("induction", planted, prompts())[PREVIOUS_TOKEN_HEAD]) == pytest.approx(0, abs=1e-2)
    assert float(mean_scores("duplicate_token", planted, prompts()).max()) < 0.03


def test_a_weaker_match_takes_the_share_that_the_softmax_gives_it(tmp_path):
    beta, promptset = 5.0, prompts()
    lm = load_model(save(copy_model(induction_scale=beta), tmp_path))
    found = float(mean_scores("induction", lm, promptset)[INDUCTION_HEAD])
    queries = torch.arange(PERIOD + 1, 2 * PERIOD + 1).double()
    match = torch.exp(torch.tensor(beta).double())
    assert found == pytest.approx(float((match / (match + queries)).mean()), abs=1e-4)


def test_the_planted_induction_disappears_on_the_controls(planted):
    for copy in ("fresh", "shuffled"):
        scores = mean_scores("induction", planted, prompts(copy=copy))
        assert float(scores[INDUCTION_HEAD]) < 0.1, copy
        assert float(mean_scores("previous_token", planted, prompts(copy=copy))[PREVIOUS_TOKEN_HEAD]) > 0.99


def test_the_planted_model_copies_what_repeats_and_nothing_else(planted):
    def value(name, **parameters):
        return float(measure(probes.get(name), {}, prompts(**parameters), lm=planted)["values"].mean())

    assert value("copy_accuracy") == 1
    assert value("copy_loss") == pytest.approx(0, abs=1e-4)
    assert value("copy_loss_gap") < -5
    assert value("copy_accuracy", copy="fresh") < 0.1
    assert value("copy_accuracy", copy="shuffled") < 0.1


def test_the_uniform_model_gives_the_harmonic_numbers(uniform):
    promptset = prompts()
    n_tokens = 2 * PERIOD + 1
    expected = {
        "previous_token": (harmonic(n_tokens) - 1) / (n_tokens - 1),
        "induction": (harmonic(2 * PERIOD + 1) - harmonic(PERIOD + 1)) / PERIOD,
        "first_token_sink": harmonic(n_tokens) / n_tokens,
        "attention_entropy": 1.0,
        "attention_distance": (n_tokens - 1) / 4,
        "relative_attention_distance": 0.5,
    }
    for name, number in expected.items():
        scores = mean_scores(name, uniform, promptset)
        torch.testing.assert_close(scores, torch.full_like(scores, number), atol=1e-4, rtol=1e-5)
    loss = measure(probes.get("next_token_loss"), {}, promptset, lm=uniform)["values"]
    torch.testing.assert_close(loss, torch.full_like(loss, torch.log(torch.tensor(128.0)).item()))
    accuracy = measure(probes.get("copy_accuracy"), {}, promptset, lm=uniform)["values"]
    assert float(accuracy.max()) == 0  # every token ties: no credit


def random_prompts(lengths):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, (len(lengths), max(lengths)), generator=generator)
    return Promptset(
        Batch(ids, torch.tensor(lengths), {name: torch.full((len(lengths),), at) for name, at in LABELS.items()}),
        correct_ids=torch.randint(0, 20, (len(lengths), 2), generator=generator),
        wrong_ids=torch.randint(20, 40, (len(lengths), 1), generator=generator),
    )


@pytest.mark.parametrize("kind", ["small", "windowed"])
@pytest.mark.parametrize("lengths", [[30] * 7, [30, 22, 18, 25, 30, 16, 21]])
def test_a_stored_trace_and_the_running_model_give_the_same_digits(request, kind, lengths):
    lm, promptset = request.getfixturevalue(kind), random_prompts(lengths)
    lm.items_per_forward[30] = 3
    traces = trace_sites(lm, promptset, ["attention_inputs", "token_scores", "answer_scores"])
    n_applied = 0
    for probe in (each for each in map(probes.get, probes.names()) if each.site is not None):
        try:
            (stored,) = measure(probe, {}, promptset, trace=traces[probe.site]).values()
        except NotApplicable as reason:
            with pytest.raises(NotApplicable, match=re.escape(str(reason))):
                measure(probe, {}, promptset, lm=lm)
            continue
        (live,) = measure(probe, {}, promptset, lm=lm).values()
        assert torch.equal(stored.nan_to_num(-9), live.nan_to_num(-9)), probe.name
        assert stored.shape[0] == 7
        n_applied += 1
    assert n_applied >= 10


def test_several_sites_cost_one_pass_and_a_stored_trace_none(small):
    promptset = random_prompts([30] * 6)
    before = small.forwards
    traces = trace_sites(small, promptset, ["attention_inputs", "token_scores"])
    passes = small.forwards - before
    trace_sites(small, promptset, ["token_scores"])
    assert small.forwards - before == 2 * passes
    before = small.forwards
    measure(probes.get("induction"), {}, promptset, trace=traces["attention_inputs"])
    measure(probes.get("next_token_loss"), {}, promptset, trace=traces["token_scores"])
    assert small.forwards == before


def test_a_trace_takes_memory_linear_in_the_length(windowed):
    promptset = random_prompts([30] * 6)
    arrays = trace_sites(windowed, promptset, ["attention_inputs"])["attention_inputs"]
    width = (windowed.n_heads + windowed.n_kv_heads) * windowed.head_width
    inputs = sum(array.numel() for name, array in arrays.items() if name.endswith(("query", "key")))
    assert inputs == 6 * 30 * width * windowed.n_layers
    assert sum(array.numel() for array in arrays.values()) < 1.01 * inputs


def test_a_site_without_answers_is_empty_and_its_probes_do_not_apply(small):
    promptset = Promptset(Batch.of(torch.arange(40).reshape(2, 20)))
    arrays = trace_sites(small, promptset, ["answer_scores"])["answer_scores"]
    assert arrays == {}
    with pytest.raises(NotApplicable, match="no"):
        measure(probes.get("logit_difference"), {}, promptset, trace=arrays)


def test_copy_probes_do_not_apply_to_prompts_without_period(small):
    with pytest.raises(NotApplicable, match="period"):
        measure(probes.get("copy_loss"), {}, random_prompts([20, 20]), lm=small)


@pytest.mark.parametrize(("lengths", "words"), [([12, 12], "16 tokens"), ([20, 30], "one length")])
def test_sinks_entropies_and_distances_need_one_length_of_at_least_16(small, lengths, words):
    for name in ("first_token_sink", "attention_entropy", "attention_distance", "relative_attention_distance"):
        with pytest.raises(NotApplicable, match=words):
            measure(probes.get(name), {}, random_prompts(lengths), lm=small)


def test_a_value_outside_the_range_is_refused_and_rounding_is_cut(small):
    def rule(scores, prompts):
        return scores.log_prob.nanmean(dim=1) * 0 + offset

    facts = {"name": "rule", "module": "here", "measure": rule, "level": "behavior", "unit": "share", "source": "here"}
    probe = Probe(**facts, low=0.0, high=1.0, site="token_scores")
    offset = 1 + 1e-7
    assert float(measure(probe, {}, random_prompts([20, 20]), lm=small)["values"].max()) == 1
    offset = 1.1
    with pytest.raises(BadInput, match=r"outside 0\.0"):
        measure(probe, {}, random_prompts([20, 20]), lm=small)


def curve_probe(values, low=0.0, high=1.0, n_points=3):
    def over_layers(lm, prompts, *, probe_seed, progress, gain=1.0):
        progress(1, 1)
        return {"share": Curve(torch.arange(n_points, dtype=torch.float64), values * gain + probe_seed)}

    facts = {"name": "over_layers", "module": "here", "level": "curve", "unit": "share", "source": "here", "site": None}
    curves = {"share": CurveFacts("layer", "share", low, high)}
    return Probe(**facts, measure=over_layers, low=low, high=high, curves=curves)


def test_a_curve_comes_as_flat_arrays_and_takes_parameters_and_a_seed(small):
    values = torch.tensor([[0.1, 0.2, torch.nan]] * 2)
    found = measure(curve_probe(values, high=9.0), {"gain": 2.0}, random_prompts([20, 20]), lm=small, probe_seed=3)
    assert list(found) == ["curve.share.x", "curve.share.values"]
    assert found["curve.share.x"].tolist() == [0, 1, 2]
    torch.testing.assert_close(found["curve.share.values"], 2 * values + 3, equal_nan=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.full((2, 3), 1.5), r"share gives 1\.5 \.\. 1\.5, outside 0\.0"),
        (torch.full((3, 3), 0.5), "3 prompts, not 2"),
    ],
)
def test_a_curve_outside_its_range_or_of_other_prompts_is_refused(small, values, words):
    with pytest.raises(BadInput, match=words):
        measure(curve_probe(values), {}, random_prompts([20, 20]), lm=small)


def test_a_curve_that_was_not_stated_is_refused_and_one_needs_a_model(small):
    probe = replace(curve_probe(torch.ones(2, 3)), curves={})
    with pytest.raises(BadInput, match=r"gives the curves \['share'\], but states \[\]"):
        measure(probe, {}, random_prompts([20, 20]), lm=small)
    with pytest.raises(BadInput, match="give it a model"):
        measure(probe, {}, random_prompts([20, 20]))


def test_a_behavior_without_a_site_runs_the_model_itself(small):
    def last_logit(lm, prompts, *, progress, token=0):
        progress(1, 1)
        with torch.no_grad():
            return lm.hf(prompts.clean.ids).logits[:, -1, token]

    facts = {"name": "last_logit", "module": "here", "level": "behavior", "unit": "logits", "source": "here"}
    probe = Probe(**facts, measure=last_logit, low=None, high=None, site=None)
    promptset = random_prompts([20, 20])
    with torch.no_grad():
        expected = small.hf(promptset.clean.ids).logits[:, -1, 7]
    assert torch.equal(measure(probe, {"token": 7}, promptset, lm=small)["values"], expected)
    with pytest.raises(BadInput, match="give it a model, not a stored trace"):
        measure(probe, {}, promptset, trace={})


def test_neither_trace_nor_model_is_refused():
    with pytest.raises(BadInput, match="stored trace or a model"):
        measure(probes.get("induction"), {}, random_prompts([20, 20]))


def test_a_trace_of_other_prompts_is_refused(small):
    arrays = trace_sites(small, random_prompts([20] * 3), ["attention_inputs"])["attention_inputs"]
    with pytest.raises(BadInput, match="3 prompts, not 2"):
        measure(probes.get("induction"), {}, random_prompts([20] * 2), trace=arrays)


def test_logit_difference_and_accuracy_follow_the_logits(small):
    promptset = random_prompts([20, 20, 20])
    with torch.no_grad():
        logits = small.hf(promptset.clean.ids).logits[:, -1]
    correct, wrong = (logits.gather(1, ids) for ids in (promptset.correct_ids, promptset.wrong_ids))
    found = measure(probes.get("logit_difference"), {}, promptset, lm=small)["values"]
    torch.testing.assert_close(found, correct.mean(1) - wrong.mean(1), atol=1e-5, rtol=1e-4)
    accuracy = measure(probes.get("answer_accuracy"), {}, promptset, lm=small)["values"]
    assert accuracy.tolist() == (correct.amax(1) > wrong.amax(1)).float().tolist()
    with pytest.raises(NotApplicable, match="corrupt"):
        measure(probes.get("logit_difference"), {"prompt": "corrupt"}, promptset, lm=small)


def test_head_scores_needs_nothing_but_ids(planted):
    promptset = prompts()
    by_facts = measure(probes.get("induction"), {}, promptset, lm=planted)["scores"]
    for ids in (promptset, promptset.clean, promptset.clean.ids):
        torch.testing.assert_close(mneme.head_scores(planted, ids, "induction"), by_facts, atol=1e-5, rtol=1e-4)
    short = torch.tensor([[1, 2, 3], [4, 5, 6]])
    sink = mneme.head_scores(planted, short, "first_token_sink", eps=0.5)
    assert float(sink[0, 0, 1]) == 1  # uniform attention over three tokens: (1 + 1/2 + 1/3) / 3 > 0.5
    with pytest.raises(BadInput, match="behavior"):
        mneme.head_scores(planted, short, "copy_loss")
