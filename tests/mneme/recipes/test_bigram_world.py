import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from mneme.errors import BadInput
from mneme.measuring import measure
from mneme.microworld.documents import Library
from mneme.microworld.lessons import WHOLE
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptsets.ioi import ioi
from mneme.recipe import Workshop
from mneme.recipes.bigram_world import bigram_world
from mneme.vocabulary import read_vocabulary

TOKENS = 20_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder and the facts of a bigram model of few documents."""
    folder = tmp_path_factory.mktemp("bigram")
    told = []
    facts = bigram_world(Workshop(folder, progress=lambda *state: told.append(state)), seed=0, n_tokens=TOKENS)
    return folder, facts, told


def test_it_says_what_it_read(trained):
    _, facts, told = trained
    assert TOKENS <= facts["tokens"] < TOKENS + 512
    assert facts["documents"] > 100
    assert all(done <= total == TOKENS for done, total, _ in told)


def test_its_probabilities_are_the_counts_of_the_documents_of_the_micro_world(trained):
    folder, facts, _ = trained
    lm, vocabulary = load_model(folder), read_vocabulary(folder)
    ids = vocabulary.tokenizer.get_vocab()
    library, rng = Library(ids, 511), np.random.default_rng(0)
    rows = [[vocabulary.first_id, *library.draw(rng, WHOLE).ids] for _ in range(facts["documents"])]
    pairs = [pair for row in rows for pair in pairwise(row)]
    last, then = ids["the"], ids["list"]
    n_pair, n_last = pairs.count((last, then)), sum(first == last for first, _ in pairs)
    n_then = sum(second == then for _, second in pairs)
    expected = (n_pair + (n_then + 1) / (len(pairs) + len(ids))) / (n_last + 1)
    found = float(lm.logits(torch.tensor([[last]]))[0, -1, then].exp())
    assert found == pytest.approx(expected, rel=1e-4)
    assert n_pair > 10


def test_it_knows_the_micro_worlds_words_and_answers_by_no_context(trained):
    folder, _, _ = trained
    vocabulary = read_vocabulary(folder)
    assert (vocabulary.bos_mode, vocabulary.context) == ("native", 512)
    prompts = ioi(vocabulary, seed=0, n_items=100)
    values = measure(probes.get("answer_accuracy"), {}, prompts, lm=load_model(folder))["values"]
    assert 0.2 < float(values.mean()) < 0.8


def test_the_same_seed_gives_the_same_weights(trained, tmp_path):
    folder, _, _ = trained
    bigram_world(Workshop(tmp_path), seed=0, n_tokens=TOKENS)
    hashes = [hashlib.sha256((each / "model.safetensors").read_bytes()).hexdigest() for each in (folder, tmp_path)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("wrong", [{"n_tokens": 0}, {"context": 8}, {"smoothing": 0}])
def test_numbers_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(BadInput, match=f"bigram_world.{next(iter(wrong))}"):
        bigram_world(Workshop(tmp_path), seed=0, **wrong)
