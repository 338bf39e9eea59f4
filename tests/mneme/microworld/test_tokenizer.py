"""Whole words are tokens, and the tokenizer of a saved model is the same one."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from mneme.microworld.tokenizer import word_tokenizer, words_in


def test_words_two_digit_numbers_and_punctuation_are_one_token_each_behind_one_first_token() -> None:
    tokenizer = word_tokenizer(["the", "Mary", "17", "32", ",", "."], 16)
    ids = tokenizer("the Mary, 1732.").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "the", "Mary", ",", "17", "32", "."]
    assert words_in("the Mary, 1732.") == ["the", "Mary", ",", "17", "32", "."]


def test_a_word_that_it_does_not_know_is_the_unknown_token_which_is_special() -> None:
    tokenizer = word_tokenizer(["the"], 16)
    (found,) = tokenizer("zebra", add_special_tokens=False).input_ids
    assert found == tokenizer.unk_token_id
    assert found in tokenizer.all_special_ids


def test_a_saved_tokenizer_reads_as_before(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["the", "Mary", ","], 16)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again("the Mary, the").input_ids == tokenizer("the Mary, the").input_ids
    assert again.model_max_length == 16
