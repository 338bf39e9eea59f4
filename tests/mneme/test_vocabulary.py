import json

import pytest
from transformers import GPT2Config, LlamaConfig

from mneme.encoding import begun
from mneme.errors import BadInput
from mneme.vocabulary import read_vocabulary
from tests.small_tokenizers import save_tokenizer


def test_a_tokenizer_that_adds_its_bos_is_native(tmp_path):
    save_tokenizer(tmp_path, adds_bos=True)
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary.bos_mode == "native"
    assert vocabulary.first_id == 0
    assert vocabulary.context == 128


def test_an_end_of_text_that_is_not_added_stands_in_for_a_bos(tmp_path):
    save_tokenizer(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary.bos_mode == "eot_as_bos"
    assert vocabulary.first_id == 0
    assert 0 in vocabulary.special_ids
    assert 0 not in vocabulary.ordinary_ids


def test_a_model_without_tokenizer_takes_its_bos_from_its_config(tmp_path):
    LlamaConfig(vocab_size=40, bos_token_id=38, eos_token_id=39).save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    assert (vocabulary.bos_mode, vocabulary.first_id) == ("eot_as_bos", 38)
    assert vocabulary.special_ids == {38, 39}
    assert vocabulary.tokenizer is None


def test_a_model_that_was_trained_behind_its_bos_may_say_so_without_a_tokenizer(tmp_path):
    GPT2Config(vocab_size=40, bos_token_id=39, eos_token_id=39).save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path, "native")
    assert (vocabulary.bos_mode, vocabulary.first_id) == ("native", 39)


def test_a_bos_outside_the_vocabulary_does_not_exist(tmp_path):
    GPT2Config(vocab_size=40).save_pretrained(tmp_path)  # its default bos is 50256
    vocabulary = read_vocabulary(tmp_path)
    assert (vocabulary.bos_mode, vocabulary.first_id, vocabulary.special_ids) == ("none", None, frozenset())


def test_none_puts_nothing_in_front(tmp_path):
    save_tokenizer(tmp_path, adds_bos=True)
    vocabulary = read_vocabulary(tmp_path, "none")
    assert vocabulary.first_id is None
    assert begun(vocabulary, [5, 6]) == [5, 6]


def test_a_first_token_is_never_put_in_front_twice(tmp_path):
    save_tokenizer(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    assert begun(vocabulary, [5, 6]) == [0, 5, 6]
    assert begun(vocabulary, [0, 5, 6]) == [0, 5, 6]


@pytest.mark.parametrize("mode", ["native", "bos"])
def test_a_bos_mode_that_the_model_does_not_allow_is_refused(tmp_path, mode):
    save_tokenizer(tmp_path)
    with pytest.raises(BadInput, match="choose auto"):
        read_vocabulary(tmp_path, mode)


def test_embedding_rows_without_a_token_and_byte_fallbacks_are_special(tmp_path):
    save_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    size = config["vocab_size"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": size + 5}))
    assert set(range(size, size + 5)) <= read_vocabulary(tmp_path).special_ids


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json"):
        read_vocabulary(tmp_path)


def test_a_broken_tokenizer_file_is_refused(tmp_path):
    save_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="tokenizer files"):
        read_vocabulary(tmp_path)
