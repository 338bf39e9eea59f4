"""What the probes say of a small language model that nobody here trained."""

from pathlib import Path

import pytest
import torch

from mneme.measuring import measure
from mneme.model import load_model
from mneme.probe import probes
from mneme.promptsets.natural_text import natural_text
from mneme.promptsets.repeated_tokens import repeated_tokens
from mneme.vocabulary import read_vocabulary

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
pytestmark = pytest.mark.skipif(
    not STORIES.is_dir(), reason="needs the stories260k weights beside the checkout, in ../shared/models"
)


@pytest.fixture(scope="module")
def lm():
    return load_model(STORIES)


@pytest.fixture(scope="module")
def vocabulary():
    return read_vocabulary(STORIES)


@pytest.fixture(scope="module")
def repeated(vocabulary):
    return repeated_tokens(vocabulary, seed=0, n_items=32, period=50)


def scores(name, lm, prompts):
    return measure(probes.get(name), {}, prompts, lm=lm)["scores"].mean(dim=0)


def test_its_tokenizer_adds_a_bos_by_itself(vocabulary):
    assert vocabulary.bos_mode == "native"
    assert vocabulary.first_id == 1
    assert vocabulary.tokenizer("hello").input_ids[0] == 1


def test_bytes_and_special_tokens_are_never_drawn(vocabulary):
    ordinary = {vocabulary.tokenizer.decode([each]) for each in vocabulary.ordinary_ids.tolist()}
    assert len(vocabulary.ordinary_ids) == 512 - 3 - 256
    assert not any(token.startswith("<0x") for token in ordinary)


def test_it_has_several_previous_token_heads(lm, repeated):
    found = scores("previous_token", lm, repeated)
    assert int((found > 0.4).sum()) >= 3
    assert 0.6 < float(found.max()) < 0.9


def test_it_has_no_induction_head_and_copies_little(lm, repeated):
    assert float(scores("induction", lm, repeated).max()) < 0.2
    accuracy = measure(probes.get("copy_accuracy"), {}, repeated, lm=lm)["values"]
    assert float(accuracy.mean()) < 0.2


def test_it_reads_prose_better_than_random_tokens(lm, vocabulary, repeated):
    prose = natural_text(vocabulary, seed=0, n_items=20, n_tokens=64)
    loss = probes.get("next_token_loss")
    of_prose, of_noise = (measure(loss, {}, prompts, lm=lm)["values"].mean() for prompts in (prose, repeated))
    assert float(of_prose) < float(of_noise) - 1


def test_its_attention_inputs_give_the_rows_that_transformers_computes(lm, repeated):
    ids = repeated.clean.ids[:4]
    lm.hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            maps = torch.stack(lm.hf(ids, output_attentions=True).attentions, dim=1)
    finally:
        lm.hf.set_attn_implementation("mneme")
    queries = torch.arange(1, ids.shape[1])
    wanted = maps[..., queries, queries - 1].mean(dim=-1)
    found = measure(probes.get("previous_token"), {}, repeated.select(slice(0, 4)), lm=lm)["scores"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
