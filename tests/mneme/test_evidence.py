"""Attention to evidence: the shares of attention known by hand, a slow road to the same sums, and what is refused."""

import pytest
import torch

from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.evidence import Names, without_outliers
from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.probes.evidence_enrichment import evidence_enrichment
from mneme.probes.evidence_mass import evidence_mass
from mneme.probes.evidence_share import evidence_share
from mneme.promptset import Promptset
from tests.architectures import tiny
from tests.patterns import uniform, with_pattern
from tests.planted import BLOCK, copy_model, save

SPANS = {"key": 11, "value": 20, "question_first": 101, "question": 102}


def prompts(n_tokens=103, items=1, ids=None, **labels):
    """Prompts with named places: 1 first token, 100 of context, of which 10 are evidence, and a question of 2."""
    places = {**SPANS, **labels}
    ids = torch.arange(n_tokens).expand(items, -1) if ids is None else ids
    return Promptset(
        Batch(
            ids,
            torch.full((len(ids),), ids.shape[1]),
            {name: torch.full((len(ids),), at) for name, at in places.items()},
        )
    )


def looking_at(keys, n_tokens=103, first=0.0):
    """One head that spreads what it does not leave on the first token evenly over `keys`."""
    pattern = torch.ones(n_tokens, n_tokens).tril()
    pattern[101:] = 0
    pattern[101:, keys] = (1 - first) / len(keys)
    pattern[101:, 0] = first
    return with_pattern((pattern / pattern.sum(dim=-1, keepdim=True))[None, None])


def random_layer(n_tokens, items=3, heads=2, window=None):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(items, heads, n_tokens, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return AttentionInputs(0, query, key, torch.full((items,), n_tokens), scale=0.7, window=window)


def test_even_attention_gives_a_tenth_of_the_context_its_tenth_and_no_enrichment():
    layer = uniform(103)
    assert float(evidence_share(layer, prompts())) == pytest.approx(0.1, abs=1e-6)
    assert float(evidence_enrichment(layer, prompts())) == pytest.approx(1, abs=1e-5)
    assert float(evidence_mass(layer, prompts())) == pytest.approx((10 / 102 + 10 / 103) / 2, abs=1e-6)


def test_a_head_that_looks_at_the_evidence_alone_has_all_of_the_share_and_ten_times_even_attention():
    layer = looking_at(range(11, 21))
    assert float(evidence_mass(layer, prompts())) == pytest.approx(1, abs=1e-6)
    assert float(evidence_share(layer, prompts())) == pytest.approx(1, abs=1e-6)
    assert float(evidence_enrichment(layer, prompts())) == pytest.approx(10, abs=1e-4)


def test_what_rests_on_the_first_token_lowers_the_mass_and_not_the_share():
    layer = looking_at([15, 50], first=0.8)
    assert float(evidence_mass(layer, prompts())) == pytest.approx(0.1, abs=1e-6)
    assert float(evidence_share(layer, prompts())) == pytest.approx(0.5, abs=1e-6)


def test_a_head_that_gives_the_context_nothing_has_a_mass_and_no_share():
    layer = looking_at([50], first=1.0)
    assert float(evidence_mass(layer, prompts())) == pytest.approx(0, abs=1e-6)
    assert torch.isnan(evidence_share(layer, prompts())).all()


def slow(layer, given, item, head, window=None):
    """Mass, share and enrichment of one item and head, token by token in float64."""
    at = {name: int(positions[item]) for name, positions in given.clean.labels.items()}
    rows = layer.rows(torch.arange(layer.n_queries))[item, head]
    mass, context, seen = [], [], []
    for query in range(at["question_first"], at["question"] + 1):
        visible = [key for key in range(query + 1) if window is None or key > query - window]
        if not all(key in visible for key in range(at["key"], at["value"] + 1)):
            continue
        mass.append(sum(float(rows[query, key]) for key in range(at["key"], at["value"] + 1)))
        inside = [key for key in visible if 1 <= key < at["question_first"]]
        context.append(sum(float(rows[query, key]) for key in inside))
        seen.append(len(inside))
    if not mass:
        return [float("nan")] * 3
    share = sum(mass) / sum(context)
    even = (at["value"] - at["key"] + 1) / (sum(seen) / len(seen))
    return [sum(mass) / len(mass), share, share / even]


@pytest.mark.parametrize("window", [None, 12, 6])
def test_the_sums_are_those_of_a_slow_loop_over_tokens_in_every_window(window):
    given = prompts(20, 3, key=9, value=11, question_first=15, question=18)
    given.clean.labels["question"][1] = 15
    given.clean.labels["key"][2] = 4
    layer = random_layer(20, window=window)
    found = torch.stack([each(layer, given) for each in (evidence_mass, evidence_share, evidence_enrichment)], dim=-1)
    expected = [[slow(layer, given, item, head, window) for head in range(2)] for item in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True)
    assert bool(found.isnan().any()) == (window == 6)


def test_even_attention_inside_a_window_is_no_enrichment_either():
    pattern = torch.tensor([[float(q - 8 < k <= q) for k in range(20)] for q in range(20)])
    layer = with_pattern((pattern / pattern.sum(dim=-1, keepdim=True))[None, None], window=8)
    given = prompts(20, key=14, value=15, question_first=17, question=19)
    assert float(evidence_enrichment(layer, given)) == pytest.approx(1, abs=1e-5)
    assert torch.isnan(evidence_mass(layer, prompts(20, key=3, value=4, question_first=17, question=19))).all()


def test_shuffled_gold_is_worth_even_attention_however_strongly_a_head_prefers_a_place():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 500, (2000, 25), generator=generator)
    given = prompts(ids=ids, key=3, value=6, question_first=22, question=24)
    pattern = torch.zeros(25, 25)
    pattern[:, 3:5] = 0.5
    layer = with_pattern(pattern.expand(2000, 1, -1, -1))
    shuffled = evidence_enrichment(layer, given, gold="shuffled")
    assert float(evidence_enrichment(layer, given).mean()) == pytest.approx(21 / 4, abs=1e-4)
    error = float(shuffled.std()) / len(shuffled) ** 0.5
    assert abs(float(shuffled.mean()) - 1) < 4 * error
    alone = evidence_enrichment(layer.select(slice(7, 8)), given.select(slice(7, 8)), gold="shuffled")
    assert torch.equal(alone, shuffled[7:8])


def test_shuffled_gold_is_as_long_as_the_evidence_and_stays_in_the_context():
    ids = torch.randint(0, 500, (200, 25), generator=torch.Generator().manual_seed(2))
    given = prompts(ids=ids, key=3, value=6, question_first=22, question=24)
    told, moved = (Names("test", gold=gold).places(given) for gold in ("told", "shuffled"))
    assert bool((moved.evidence.sum(dim=1) == 4).all())
    assert not bool((moved.evidence & ~told.context).any())
    assert bool((moved.evidence.any(dim=0) == told.context.any(dim=0)).all())


def copier(tmp_path):
    return load_model(save(copy_model(), tmp_path))


def of_copier(ids, **labels):
    return prompts(ids=ids, key=2, value=3, question_first=6, question=6, **labels)


def calibrated(lm, given, **parameters):
    return measure(probes.get("evidence_calibrated"), parameters, given, lm=lm)["scores"]


def test_a_question_that_says_what_the_empty_one_says_draws_nothing(tmp_path):
    ids = torch.tensor([[BLOCK - 1, 7, 5, 9, 30, 41, 41]])
    torch.testing.assert_close(calibrated(copier(tmp_path), of_copier(ids)), torch.zeros(1, 2, 4))


def test_the_planted_copier_draws_its_attention_to_the_answer_when_asked_and_not_by_an_empty_question(tmp_path):
    ids = torch.tensor([[BLOCK - 1, 7, 5, 9, 30, 41, 5]])
    found = calibrated(copier(tmp_path), of_copier(ids))
    expected = torch.zeros(1, 2, 4)
    expected[0, 1, 0] = 1  # the induction head looks at what followed 5; the empty question 41 matches nothing before
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_another_question_on_the_same_context_calibrates_too(tmp_path):
    clean = torch.tensor([[BLOCK - 1, 7, 5, 9, 30, 41, 5]])
    corrupt = torch.tensor([[BLOCK - 1, 7, 5, 9, 30, 41, 7]])
    given, lm = of_copier(clean), copier(tmp_path)
    paired = Promptset(given.clean, corrupt=Batch.of(corrupt))
    found = calibrated(lm, paired, evidence=["value", "value"], against="corrupt")
    assert float(found[0, 1, 0]) == pytest.approx(1, abs=1e-4)  # 7 was followed by 5, which is not the evidence
    with pytest.raises(NotApplicable, match="no corrupt prompts"):
        calibrated(lm, given, against="corrupt")
    moved = Promptset(given.clean, corrupt=Batch.of(torch.where(corrupt == 9, 8, corrupt)))
    with pytest.raises(NotApplicable, match="differ from clean ones in the context too"):
        calibrated(lm, moved, against="corrupt")


def test_calibrated_attention_is_the_difference_of_two_masses_where_nothing_is_dropped(tmp_path):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, BLOCK - 1, (4, 12), generator=generator)
    given = prompts(ids=ids, key=3, value=6, question_first=9, question=11)
    empty = prompts(
        ids=torch.cat([ids[:, :9], ids[:, 8:9].expand(-1, 3)], dim=1),
        **{name: int(at[0]) for name, at in given.clean.labels.items()},
    )
    lm, mass = copier(tmp_path), probes.get("evidence_mass")
    expected = measure(mass, {}, given, lm=lm)["scores"] - measure(mass, {}, empty, lm=lm)["scores"]
    torch.testing.assert_close(calibrated(lm, given), expected, atol=1e-6, rtol=0)


def margin(lm, given, **parameters):
    return measure(probes.get("evidence_margin"), {"evidence": ["key", "value"], **parameters}, given, lm=lm)["scores"]


def of_documents(ids):
    """Three documents of two tokens, of which the second answers the question, the last token."""
    places = {"key_0": 1, "target_0": 2, "key_1": 3, "target_1": 4, "key_2": 5, "target_2": 6}
    return prompts(ids=torch.tensor(ids), key=3, value=4, question_first=8, question=8, **places)


def test_the_planted_copier_scores_the_gold_document_above_all_others_by_its_whole_attention(tmp_path):
    lm = copier(tmp_path)
    asked = of_documents([[BLOCK - 1, 7, 8, 5, 9, 30, 31, 41, 5]])
    expected = torch.zeros(1, 2, 4)
    expected[0, 1, 0] = 1  # the induction head looks at what followed 5, in the second document
    torch.testing.assert_close(margin(lm, asked), expected, atol=1e-4, rtol=0)
    elsewhere = of_documents([[BLOCK - 1, 7, 8, 5, 9, 30, 31, 41, 7]])  # asks the first document: a distractor
    torch.testing.assert_close(margin(lm, elsewhere), -expected, atol=1e-4, rtol=0)
    nothing = of_documents([[BLOCK - 1, 7, 8, 5, 9, 30, 31, 41, 41]])
    torch.testing.assert_close(margin(lm, nothing), torch.zeros(1, 2, 4), atol=1e-6, rtol=0)


def test_a_margin_is_the_calibrated_score_of_one_document_minus_the_best_of_the_others(tmp_path):
    generator = torch.Generator().manual_seed(6)
    given = of_documents(torch.randint(0, BLOCK - 1, (5, 9), generator=generator).tolist())
    lm = copier(tmp_path)
    scores = [calibrated(lm, given, evidence=[f"key_{each}", f"target_{each}"]) for each in range(3)]
    expected = scores[1] - torch.maximum(scores[0], scores[2])
    torch.testing.assert_close(margin(lm, given), expected, atol=1e-6, rtol=0)


def test_documents_that_are_not_labelled_or_not_apart_from_the_evidence_are_refused(tmp_path):
    lm, given = copier(tmp_path), of_documents([[BLOCK - 1, 7, 8, 5, 9, 30, 31, 41, 5]])
    with pytest.raises(NotApplicable, match="labels 'text_0' and 'end_0', which this promptset lacks"):
        margin(lm, given, documents=["text_{}", "end_{}"])
    with pytest.raises(BadInput, match=r"give two labels with \{\} for the number"):
        margin(lm, given, documents=["key_0", "target_0"])
    with pytest.raises(BadInput, match="prompt 0 has no document beside its evidence"):
        margin(lm, given, evidence=["key_0", "target_2"])
    with pytest.raises(NotApplicable, match="evidence names the label 'gold', which this promptset lacks"):
        margin(lm, given, evidence=["gold", "value"])


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_mass_and_share_are_those_of_the_eager_attention_of_hugging_face(model_type, tmp_path):
    hf = tiny(model_type)
    hf.save_pretrained(tmp_path)
    ids = torch.randint(3, 40, (3, 16), generator=torch.Generator().manual_seed(4))
    given = prompts(ids=ids, key=9, value=10, question_first=12, question=14)
    hf.set_attn_implementation("eager")
    rows = torch.stack(hf(ids, output_attentions=True).attentions, dim=1)[..., 12:15, :]
    mass, context = rows[..., 9:11].sum(dim=-1).mean(dim=-1), rows[..., 1:12].sum(dim=-1).mean(dim=-1)
    lm = load_model(tmp_path)
    found = {
        name: measure(probes.get(name), {}, given, lm=lm)["scores"] for name in ("evidence_mass", "evidence_share")
    }
    whole = [1] if model_type == "gemma2" else [0, 1, 2]  # its other layers have a window of 6
    torch.testing.assert_close(found["evidence_mass"][:, whole], mass[:, whole], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["evidence_share"][:, whole], (mass / context)[:, whole], atol=1e-5, rtol=1e-4)


def test_what_lies_two_deviations_below_the_mean_is_dropped():
    scores = torch.tensor([[0.2] * 9 + [-1.0], [0.1, 0.2, 0.3] + [torch.nan] * 7, [torch.nan] * 10])
    assert without_outliers(scores)[:2].tolist() == pytest.approx([1.8, 0.6])
    assert bool(without_outliers(scores)[2].isnan())


@pytest.mark.parametrize(
    ("labels", "parameters", "words"),
    [
        ({"key": 21}, {}, "evidence: 'value' stands before 'key' in prompt 0: name the first label first"),
        ({"value": 101}, {}, "overlaps the evidence 'key' .. 'value'"),
        ({"question_first": 1, "question": 5}, {}, "a causal model cannot have read all of it in prompt 0"),
        ({"start": 11, "stop": 102}, {"context": ["start", "stop"]}, "cannot have read all of it"),
        ({"key": 1, "value": 100}, {}, "is the whole context in prompt 0"),
        ({"start": 12, "stop": 40}, {"context": ["start", "stop"]}, "lies outside the context"),
        ({"key": 0}, {}, "lies outside the context"),
        ({}, {"evidence": "value"}, "evidence is 'value': give the labels of its first and last token"),
        ({}, {"query": ["question"]}, "query is .'question'.: give the labels"),
        ({}, {"gold": "moved"}, "gold is 'moved': choose one of told, shuffled"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence_with_its_labels(labels, parameters, words):
    with pytest.raises(BadInput, match=words):
        evidence_mass(uniform(103), prompts(**labels), **parameters)


def test_a_promptset_without_the_label_is_not_measured():
    with pytest.raises(NotApplicable, match="names the label 'needle', which this promptset lacks; it has key"):
        evidence_mass(uniform(103), prompts(), evidence=["needle", "value"])
