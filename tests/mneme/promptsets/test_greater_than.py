"""Greater-than: years after the first are right, and no frequent year helps."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mneme.errors import BadInput
from mneme.promptset import Vocabulary
from mneme.promptsets.greater_than import YEARS, greater_than, scene
from mneme.words import Words, is_held_out
from tests.scene_checks import changed_places, words_at
from tests.scene_vocabularies import END, bpe_vocabulary, texts, word_vocabulary

WORDS = word_vocabulary("greater_than")
BPE = bpe_vocabulary("greater_than", 700)
ASKED = re.compile(r"The (\w+) lasted from the year (\d\d)(\d\d) to the year (\d\d)")


def years(vocabulary: Vocabulary, row: torch.Tensor) -> list[str]:
    return [vocabulary.tokenizer.decode(int(each)).strip() for each in row if each >= 0]


def test_a_scene_says_a_later_year_of_the_same_century() -> None:
    told = scene(np.random.default_rng(0), Words(), 1)
    (question,) = told.questions
    event, century, year = told.binding
    assert question.text.text == f"The {event} lasted from the year {century}{year} to the year {century}"
    assert question.wrong == tuple(f"{each:02d}" for each in range(int(year) + 1))
    assert question.correct == tuple(f"{each:02d}" for each in range(int(year) + 1, 100))
    assert question.answer in question.correct
    assert told.document().text.startswith(f"{question.text.text}{question.answer}. The ")


@pytest.mark.parametrize("vocabulary", [WORDS, BPE], ids=["words", "bpe"])
def test_correct_are_the_years_after_the_first_and_wrong_all_others(vocabulary: Vocabulary) -> None:
    prompts = greater_than(vocabulary, seed=0, n_items=100)
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    for item, text in enumerate(prompts.texts or ()):
        event, century, year, again = ASKED.fullmatch(text).groups()  # type: ignore[union-attr]
        assert again == century
        assert years(vocabulary, prompts.correct_ids[item]) == [each for each in YEARS if each > year]
        assert years(vocabulary, prompts.wrong_ids[item]) == [each for each in YEARS if each <= year]
        labels = {
            name: words_at(prompts.select(slice(item, item + 1)), vocabulary, name) for name in prompts.clean.labels
        }
        assert labels == {
            "end": [century],
            "event": [event],
            "century": [century],
            "year": [year],
            "century_again": [century],
        }
    assert prompts.clean.labels["end"].tolist() == prompts.clean.labels["century_again"].tolist()


def test_the_corrupt_prompt_begins_in_the_year_one_of_the_century() -> None:
    prompts = greater_than(WORDS, seed=0, n_items=50)
    assert prompts.corrupt is not None
    for item in range(50):
        place = int(prompts.clean.labels["year"][item])
        assert changed_places(prompts, item) == [place]
        assert WORDS.tokenizer.decode(int(prompts.corrupt.ids[item, place])) == "01"


def test_first_years_are_balanced_and_chance_is_what_equal_probabilities_give() -> None:
    prompts = greater_than(WORDS, seed=0, n_items=400)
    first = torch.tensor([int(each) for each in words_at(prompts, WORDS, "year")]).double()
    assert set(first.tolist()) == set(range(3, 99, 2))
    assert abs(float(first.mean()) - 50) < 4
    chance = prompts.facts["chance"]
    assert chance["set_accuracy"] == pytest.approx(
        float((first < 49).double().mean() + 0.5 * (first == 49).double().mean())
    )
    assert chance["answer_accuracy"] == pytest.approx(float((99 - first).mean()) / 100)


def test_equal_probabilities_of_all_years_favor_the_larger_side_which_is_two_hundredths_of_wrong_ones_at_50() -> None:
    """METHODS 11: the difference of probabilities of a uniform guess is -0.02 at the year 50."""
    prompts = greater_than(WORDS, seed=0, n_items=100)
    assert prompts.correct_ids is not None
    assert prompts.wrong_ids is not None
    first = torch.tensor([int(each) for each in words_at(prompts, WORDS, "year")])
    sizes = [(side >= 0).sum(dim=1) for side in (prompts.correct_ids, prompts.wrong_ids)]
    assert torch.equal(sizes[0] - sizes[1], 98 - 2 * first)  # of 100 years: -2 where the first year is 50
    assert torch.equal(sizes[0] + sizes[1], torch.full_like(first, 100))


def test_what_year_follows_a_century_most_often_in_training_is_no_help() -> None:
    after: Counter[tuple[str, str]] = Counter()
    for text in texts("greater_than", 3000):
        after.update(re.findall(r"(\d\d)(\d\d)", text))
    prompts = greater_than(WORDS, seed=0, n_items=400)
    hits = []
    for text in prompts.texts or ():
        _, century, year, _ = ASKED.fullmatch(text).groups()  # type: ignore[union-attr]
        later, others = (
            sum(after[century, each] for each in side) for side in (YEARS[int(year) + 1 :], YEARS[: int(year) + 1])
        )
        hits.append(later > others)
    assert abs(np.mean(hits) - prompts.facts["chance"]["set_accuracy"]) < 0.05


def test_an_answer_is_any_later_year_with_the_same_chance() -> None:
    rng, words = np.random.default_rng(0), Words()
    shares = []
    for _ in range(2000):
        (question,) = scene(rng, words, 1).questions
        shares.append((int(question.answer) - len(question.wrong) + 0.5) / len(question.correct))
    assert np.histogram(shares, bins=5, range=(0, 1))[0].min() > 330


def test_held_out_sentences_are_asked_and_never_told() -> None:
    told = {each[:3] for text in texts("greater_than", 3000) for each in ASKED.findall(text)}
    assert not any(is_held_out(each) for each in told)
    seen = {}
    for split in ("discovery", "evaluation"):
        asked = [ASKED.fullmatch(text).groups()[:3] for text in greater_than(WORDS, seed=0, split=split).texts or ()]  # type: ignore[union-attr]
        assert all(is_held_out(each) for each in asked)
        seen[split] = [set(column) for column in zip(*asked, strict=True)]
    assert not any(one & other for one, other in zip(seen["discovery"], seen["evaluation"], strict=True))


def with_whole_years(*whole: str) -> Vocabulary:
    """The BPE with some years that are one token, as GPT-2 has them."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(BPE.tokenizer.backend_tokenizer.to_str()), bos_token=END, eos_token=END
    )
    tokenizer.add_tokens(list(whole))
    return Vocabulary(len(tokenizer), 512, "eot_as_bos", 0, frozenset({0}), tokenizer)


def test_a_first_year_that_is_one_token_is_rejected_and_as_an_answer_it_is_still_two() -> None:
    vocabulary = with_whole_years(*(f"16{year}" for year in YEARS[50:]))
    prompts = greater_than(vocabulary, seed=0, n_items=100)
    assert prompts.dropped["a named word ends inside a token"] > 0
    assert prompts.correct_ids is not None
    is_16 = [item for item, text in enumerate(prompts.texts or ()) if text.endswith("16")]
    assert len(is_16) > 5
    for item in is_16:
        year = words_at(prompts, vocabulary, "year")[item]
        assert year < "50"
        assert years(vocabulary, prompts.correct_ids[item]) == [each for each in YEARS if each > year]


def test_a_tokenizer_of_digits_is_refused() -> None:
    with pytest.raises(BadInput, match="20 distinct prompts are asked for and 2000 draws gave 0"):
        greater_than(bpe_vocabulary("greater_than", 520), seed=0, n_items=20)


def test_more_prompts_than_exist_are_refused() -> None:
    vocabulary = with_whole_years(*(f"{century}{year}" for century in (12, 14, 16, 18) for year in YEARS[4:]))
    with pytest.raises(BadInput, match="40 distinct prompts"):
        greater_than(vocabulary, seed=0, n_items=40)


def test_the_seed_decides_the_prompts() -> None:
    first, again, other = (greater_than(WORDS, seed=seed, n_items=20).clean.ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
