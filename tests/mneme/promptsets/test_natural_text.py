import pytest

from mneme.errors import BadInput, NotApplicable
from mneme.promptset import Vocabulary
from mneme.promptsets.natural_text import _texts, natural_text
from mneme.vocabulary import read_vocabulary
from tests.small_tokenizers import save_tokenizer


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return read_vocabulary(folder)


def test_prompts_have_one_length_and_begin_with_the_first_token(vocabulary):
    prompts = natural_text(vocabulary, seed=0, n_items=20, n_tokens=48)
    assert prompts.clean.ids.shape == (20, 48)
    assert prompts.clean.is_full
    assert (prompts.clean.ids[:, 0] == vocabulary.first_id).all()
    assert prompts.facts["bos_mode"] == "eot_as_bos"


def test_without_bos_the_prompt_is_text_from_its_first_token(vocabulary):
    prompts = natural_text(vocabulary, seed=0, n_items=20, n_tokens=48, bos=False)
    assert not (prompts.clean.ids == vocabulary.first_id).any()
    assert prompts.facts["bos_mode"] == "none"
    assert prompts.facts["offset"] == 0


def test_prompts_are_pieces_of_the_texts_and_clusters_say_of_which(vocabulary):
    prompts = natural_text(vocabulary, seed=0, n_items=30, n_tokens=32)
    texts = _texts()
    assert len(set(prompts.texts)) == 30
    for text, cluster in zip(prompts.texts, prompts.clusters.tolist(), strict=True):
        assert text.strip("�") in texts[cluster]


def test_about_ten_thousand_words_are_there():
    assert sum(len(text.split()) for text in _texts()) > 9_000


def test_a_vocabulary_without_tokenizer_is_not_applicable():
    with pytest.raises(NotApplicable, match="no tokenizer"):
        natural_text(Vocabulary(10, 10, "none", None, frozenset()), seed=0)


@pytest.mark.parametrize(("parameters", "words"), [({"n_tokens": 500}, "128"), ({"n_items": 10**6}, "asked for")])
def test_more_than_there_is_is_refused(vocabulary, parameters, words):
    with pytest.raises(BadInput, match=words):
        natural_text(vocabulary, seed=0, **parameters)
