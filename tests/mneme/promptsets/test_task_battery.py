"""The task battery: pairs of equal length, single-token answers, balanced, disjoint, and nothing to gain by habit."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from operator import add, floordiv, mul, sub
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.ablation import ablate_head_sets
from mneme.errors import BadInput, NotApplicable
from mneme.lexicon import AGREEING_NOUNS, CAPITALS
from mneme.microworld.documents import world_words
from mneme.microworld.tokenizer import word_tokenizer
from mneme.model import LanguageModel, load_model
from mneme.primary_readout import primary_readout
from mneme.probes.head_patching import head_patching
from mneme.promptset import Promptset, Vocabulary, promptsets
from mneme.promptsets.arithmetic import ANSWERS, CORRUPTIONS, FORMS, OPERATORS, arithmetic, pairs_of, result
from mneme.promptsets.country_capital import country_capital
from mneme.promptsets.echo import echo
from mneme.promptsets.gendered_pronoun import gendered_pronoun
from mneme.promptsets.hypernymy import hypernymy
from mneme.promptsets.npi import npi
from mneme.promptsets.wug_plural import wug_plural
from mneme.scene_prompts import Rejected
from mneme.stories import Scene, told
from mneme.task_lexicon import EXEMPLARS, ROLES
from mneme.task_pairs import PairReader, pair, promptset_of_pairs, task_words
from tests.scene_checks import answers, changed_places, text_of, words_at
from tests.scene_vocabularies import bpe_vocabulary
from tests.task_vocabularies import TASKS, task_vocabulary

CATEGORY_OF = {form: names for names, members in EXEMPLARS.items() for entry in members for form in entry.split("/")}


@cache
def built(name: str, seed: int = 0, **parameters: Any) -> Promptset:
    return promptsets.get(name).build(task_vocabulary(name), seed=seed, **parameters)


def forms(name: str, row: torch.Tensor) -> list[str]:
    tokenizer = task_vocabulary(name).tokenizer
    assert tokenizer is not None
    return [tokenizer.decode(int(each)).strip() for each in row if each >= 0]


@cache
def micro_vocabulary() -> Vocabulary:
    tokenizer = word_tokenizer(world_words(), 128)
    special = frozenset(tokenizer.all_special_ids)
    return Vocabulary(len(tokenizer), 128, "native", tokenizer.bos_token_id, special, tokenizer)


def always_the_same(vocabulary: Vocabulary, folder: Path) -> LanguageModel:
    """A model that says the same after every prompt: its last norm gives one vector whatever it is given."""
    config = GPT2Config(vocab_size=vocabulary.size, n_positions=vocabulary.context, n_embd=8, n_layer=1, n_head=2)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(torch.randn(8))
    model.save_pretrained(folder)
    return load_model(folder)


@pytest.mark.parametrize("name", TASKS)
def test_two_hundred_pairs_align_and_differ(name: str) -> None:
    prompts = built(name)
    assert len(prompts) == len({tuple(row) for row in prompts.clean.ids.tolist()}) == 200
    assert prompts.corrupt is not None
    assert torch.equal(prompts.corrupt.lengths, prompts.clean.lengths)
    assert all(1 <= len(changed_places(prompts, item)) <= 4 for item in range(200))


@pytest.mark.parametrize("name", TASKS)
def test_no_right_answer_is_wrong_too_or_stands_in_the_corrupt_prompt(name: str) -> None:
    prompts = built(name)
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    assert prompts.corrupt is not None
    for item in range(200):
        right, wrong = (
            {int(each) for each in ids[item] if each >= 0} for ids in (prompts.correct_ids, prompts.wrong_ids)
        )
        assert not right & wrong
        assert not right & set(prompts.corrupt.ids[item].tolist())


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_right_in_more_than_sixty_percent(name: str) -> None:
    for seed in (0, 1):
        correct = built(name, seed, n_items=60).correct_ids
        assert correct is not None
        assert max(Counter(map(tuple, correct.tolist())).values()) <= 0.6 * 60


@pytest.mark.parametrize("name", TASKS)
def test_no_prompt_of_one_held_out_split_is_clean_or_corrupt_in_the_other(name: str) -> None:
    discovery, evaluation = (built(name, split=each, n_items=50) for each in ("discovery", "evaluation"))
    said = []
    for prompts in (discovery, evaluation):
        assert prompts.corrupt is not None
        said.append({tuple(row) for batch in (prompts.clean, prompts.corrupt) for row in batch.ids.tolist()})
    assert not said[0] & said[1]


@pytest.mark.parametrize("name", TASKS)
def test_a_model_that_always_says_the_same_has_no_gap_and_is_refused(name: str, tmp_path: Path) -> None:
    prompts = built(name, n_items=40)
    lm, readout = always_the_same(task_vocabulary(name), tmp_path), primary_readout(prompts)
    assert prompts.corrupt is not None
    clean, corrupt = (ablate_head_sets(lm, batch, readout, [()]) for batch in (prompts.clean, prompts.corrupt))
    assert torch.equal(clean, corrupt)
    with pytest.raises(NotApplicable, match="there is nothing to patch"):
        head_patching(lm, prompts, probe_seed=0)


@pytest.mark.parametrize("roles", ["stereotypical", "definitional"])
def test_the_pronoun_is_that_of_the_role(roles: str) -> None:
    prompts = built("gendered_pronoun", roles=roles, n_items=100)
    is_male = prompts.conditions["is_male"].tolist()
    for item, role in enumerate(words_at(prompts, task_vocabulary("gendered_pronoun"), "role")):
        gender = "male" if is_male[item] else "female"
        assert role in ROLES[f"{roles} {gender}"]
        assert forms("gendered_pronoun", prompts.correct_ids[item]) == [{"male": "he", "female": "she"}[gender]]
        assert changed_places(prompts, item) == [int(prompts.clean.labels["role"][item])]


@pytest.mark.parametrize("frame", ["plural", "singular"])
def test_the_category_is_that_of_the_exemplar_in_both_numbers(frame: str) -> None:
    prompts = built("hypernymy", frame=frame, n_items=100)
    for item, word in enumerate(words_at(prompts, task_vocabulary("hypernymy"), "exemplar")):
        assert forms("hypernymy", prompts.correct_ids[item]) == CATEGORY_OF[word].split("/")
        assert len(forms("hypernymy", prompts.wrong_ids[item])) == 2 * (prompts.facts["n_categories"] - 1)
    endings = {text.split()[-1] for text in prompts.texts or ()}
    assert endings == {"other" if frame == "plural" else "a"}


@pytest.mark.parametrize("asked", ["capital", "country"])
@pytest.mark.parametrize("phrasing", ["apposition", "sentence"])
def test_capitals_are_asked_both_ways(asked: str, phrasing: str) -> None:
    prompts = built("country_capital", asked=asked, phrasing=phrasing, n_items=50)
    vocabulary = task_vocabulary("country_capital")
    both = CAPITALS if asked == "capital" else {city: country for country, city in CAPITALS.items()}
    assert [both[each] for each in words_at(prompts, vocabulary, "subject")] == answers(prompts, vocabulary)


def test_only_a_no_at_the_front_licenses_any_and_ever() -> None:
    prompts = built("npi", n_items=100)
    plurals = set(AGREEING_NOUNS.values())
    found = Counter()
    for item, text in enumerate(prompts.texts or ()):
        sentence = re.fullmatch(r"(No|The) (\w+) that (\w+) (no|the) (\w+) has( had)?", text)
        assert sentence is not None
        front, subject, _, inner, attractor, had = sentence.groups()
        expected = {(True, True): "any", (True, False): "ever", (False, True): "some", (False, False): "never"}
        assert forms("npi", prompts.correct_ids[item]) == [expected[front == "No", bool(had)]]
        assert forms("npi", prompts.wrong_ids[item]) == [expected[front != "No", bool(had)]]
        assert (subject in AGREEING_NOUNS, attractor in plurals) == (True, True)
        found[front, inner] += 1
    assert len(found) == 4


def test_two_wug_take_an_s_and_one_takes_the_full_stop() -> None:
    prompts = built("wug_plural", n_items=100)
    for item, text in enumerate(prompts.texts or ()):
        *_, verb, count, noun = text.split()
        assert f"there was one {noun}, and now there" in text
        assert forms("wug_plural", prompts.correct_ids[item]) == ["." if count == "one" else "s"]
        assert verb == ("is" if count == "one" else "are")


def test_the_last_word_of_the_open_list_is_asked_and_the_corrupt_list_lacks_it() -> None:
    prompts, vocabulary = built("echo", n_items=50), task_vocabulary("echo")
    assert prompts.corrupt is not None
    assert words_at(prompts, vocabulary, "source") == answers(prompts, vocabulary)
    assert words_at(prompts, vocabulary, "previous") == words_at(prompts, vocabulary, "question_previous")
    for item, text in enumerate(prompts.texts or ()):
        lists = re.findall(r"list: ([\w, ]+)\. Again: ([\w, ]+)", text)
        assert [first == again for first, again in lists] == [True, True, False]
        assert lists[2][0].removesuffix(answers(prompts, vocabulary)[item]) == f"{lists[2][1]} "
        assert changed_places(prompts, item) == [int(prompts.clean.labels["source"][item])]
        other = text_of(vocabulary, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        assert answers(prompts, vocabulary)[item] not in re.findall(r"\w+", other)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_sums_are_right_and_their_counterparts_give_the_wrong_answer(
    operator: str, form: str, answer: str, corrupt: str
) -> None:
    made = {"operator": operator, "form": form, "answer": answer, "corrupt": corrupt}
    if answer == "first_digit" and form == "words":
        with pytest.raises(BadInput, match="give form: symbols"):
            built("arithmetic", **made)
        return
    prompts, vocabulary = built("arithmetic", n_items=30, **made), task_vocabulary("arithmetic")
    assert prompts.corrupt is not None
    cut = None if answer == "whole" else 1
    for item, text in enumerate(prompts.texts or ()):
        other = text_of(vocabulary, prompts.corrupt.ids[item], int(prompts.corrupt.lengths[item]))
        assert forms("arithmetic", prompts.correct_ids[item]) == [worked_out(text)[:cut]]
        assert forms("arithmetic", prompts.wrong_ids[item]) == [worked_out(other)[:cut]]


def worked_out(text: str) -> str:
    """The result of a sum as a person reads it."""
    found = re.match(r"(\d+) ?(\+|-|x|/|plus|minus|times|over) ?(\d+)", text)
    assert found is not None
    first, sign, second = found.groups()
    spoken = {"plus": "+", "minus": "-", "times": "x", "over": "/"}.get(sign, sign)
    work = {"+": add, "-": sub, "x": mul, "/": floordiv}[spoken]
    return str(work(int(first), int(second)))


def test_results_are_whole_numbers_up_to_99() -> None:
    assert result("plus", 50, 49) == 99
    assert result("plus", 50, 50) is None
    assert result("minus", 3, 5) is None
    assert result("over", 8, 2) == 4
    assert result("over", 8, 3) is None
    both = [set(pairs_of("times", split, 99)) for split in ("discovery", "evaluation")]
    assert not both[0] & both[1]
    assert both[0] | both[1] == set(pairs_of("times", "train", 99))
    assert all((second, first) in both[0] for first, second in both[0])


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("echo", {}, r"\w+ read the list: "),
        ("country_capital", {"phrasing": "sentence"}, r".*The capital of \w+ is"),
        ("country_capital", {"phrasing": "sentence", "asked": "country"}, r".*\w+ is the capital of"),
    ],
)
def test_what_the_micro_world_has_words_for_is_asked_there(name: str, parameters: dict[str, Any], text: str) -> None:
    prompts = promptsets.get(name).build(micro_vocabulary(), seed=0, n_items=60, **parameters)
    assert len(prompts) == 60
    assert all(re.match(text, each) for each in prompts.texts or ())


@pytest.mark.parametrize("name", ["gendered_pronoun", "hypernymy", "npi", "wug_plural", "arithmetic"])
def test_what_the_micro_world_has_no_words_for_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="use a promptset that fits this model"):
        promptsets.get(name).build(micro_vocabulary(), seed=0, n_items=20)


def test_words_of_several_tokens_are_left_out_and_counted() -> None:
    prompts = country_capital(bpe_vocabulary("stored_facts", 900), seed=0, n_items=10, phrasing="sentence")
    assert prompts.dropped["capitals of countries: not a single token"] > 0


def test_a_pair_with_the_answer_in_its_corrupt_prompt_is_rejected() -> None:
    reader = PairReader(task_vocabulary("npi"), "here")
    seen = pair(told("No author has"), told("The author has ever"), ("ever",), ("never",), cluster="")
    with pytest.raises(Rejected, match="differ in their number of tokens"):
        reader.read(seen)
    seen = pair(told("No author has"), told("No author ever"), ("ever",), ("never",), cluster="")
    with pytest.raises(Rejected, match="a correct answer stands in the corrupt prompt"):
        reader.read(seen)
    assert PairReader(task_vocabulary("npi"), "here", is_hidden=False).read(seen).text == "No author has"


def test_answers_that_are_mostly_the_same_are_refused() -> None:
    vocabulary = task_vocabulary("npi")
    nouns = iter(AGREEING_NOUNS)

    def draw() -> Scene:
        clean, corrupt = (told(f"{front} {{noun}} has", noun=noun) for noun in [next(nouns)] for front in ("No", "The"))
        return pair(clean, corrupt, ("ever",), ("never",), cluster="")

    words = task_words(vocabulary, "here", "evaluation")
    with pytest.raises(BadInput, match="here: one answer is right in 100% of the prompts, and 60% is the most"):
        promptset_of_pairs(PairReader(vocabulary, "here"), draw, 12, {}, words)


@pytest.mark.parametrize(
    ("build", "parameters", "message"),
    [
        (
            gendered_pronoun,
            {"roles": "any"},
            "gendered_pronoun.roles is 'any': choose one of stereotypical, definitional",
        ),
        (hypernymy, {"frame": "dual"}, "hypernymy.frame is 'dual': choose one of plural, singular, mixed"),
        (country_capital, {"asked": "king"}, "country_capital.asked is 'king': choose one of capital, country"),
        (npi, {"item": "yet"}, "npi.item is 'yet': choose one of any, ever, mixed"),
        (wug_plural, {"n_items": 0}, "wug_plural.n_items is 0"),
        (echo, {"n_words": 1}, "echo.n_words is 1: give a whole number of at least 2"),
        (arithmetic, {"operator": "power"}, "arithmetic.operator is 'power': choose one of plus, minus, times, over"),
        (arithmetic, {"most": 100}, "arithmetic.most is 100"),
        (npi, {"split": "all"}, "npi.split is 'all'"),
    ],
)
def test_bad_parameters_are_refused(build: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(task_vocabulary("npi"), seed=0, **parameters)
