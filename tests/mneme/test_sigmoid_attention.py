import json
import math

import pytest
import torch

from mneme.errors import NotApplicable
from mneme.measuring import head_scores
from mneme.model import load_model
from mneme.sigmoid_attention import SigmoidForCausalLM, attention_weights
from mneme.toys.heads import ToyShape, forward_with_heads, toy_model
from mneme.vocabulary import read_vocabulary

SHAPE = ToyShape(2, 2, 16)


def small(is_sigmoid):
    torch.manual_seed(0)
    return toy_model(SHAPE, 30, 24, first_id=29, is_sigmoid=is_sigmoid).eval()


def test_a_sigmoid_weight_is_that_of_its_own_score_and_none_is_later():
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    key = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    found = attention_weights(query, key, bias=-1.0)
    first = 1 / (1 + math.exp(-(3 / math.sqrt(2) - 1)))
    second = [1 / (1 + math.exp(1.0)), 1 / (1 + math.exp(-(2 / math.sqrt(2) - 1)))]
    assert found[0].tolist() == pytest.approx([first, 0.0])
    assert found[1].tolist() == pytest.approx(second)
    assert attention_weights(query, key).sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])


def test_without_scores_a_whole_row_of_sigmoids_weighs_about_one():
    config = small(is_sigmoid=True).config
    weights = attention_weights(torch.zeros(24, 4), torch.zeros(24, 4), bias=config.attention_bias)
    assert weights[-1].sum().item() == pytest.approx(24 / 25)


def test_a_later_token_changes_no_earlier_logits():
    model = small(is_sigmoid=True)
    ids = torch.arange(10)[None]
    other = ids.clone()
    other[0, -1] = 20
    with torch.no_grad():
        one, two = model(input_ids=ids).logits, model(input_ids=other).logits
    assert torch.allclose(one[:, :-1], two[:, :-1], atol=1e-6)
    assert not torch.allclose(one[:, -1], two[:, -1], atol=1e-3)


def test_a_saved_sigmoid_model_is_never_taken_for_a_gpt2(tmp_path):
    model = small(is_sigmoid=True)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mneme-sigmoid"
    lm = load_model(tmp_path)
    assert isinstance(lm.hf, SigmoidForCausalLM)
    assert not lm.attention
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        assert torch.allclose(lm.logits(ids), model(input_ids=ids).logits, atol=1e-5)
    with pytest.raises(NotApplicable, match="only behavior probes apply to it"):
        head_scores(lm, ids, "previous_token")
    assert read_vocabulary(tmp_path, "native").context == 24


@pytest.mark.parametrize("is_sigmoid", [False, True])
def test_the_heads_that_are_watched_are_those_that_the_model_uses(is_sigmoid):
    model = small(is_sigmoid)
    ids = torch.randint(30, (3, 12), generator=torch.Generator().manual_seed(1))
    mixed = []
    for block in model.transformer.h:
        block.attn.c_proj.register_forward_pre_hook(lambda _module, inputs: mixed.append(inputs[0]))
    with torch.no_grad():
        logits, attention, values = forward_with_heads(model, ids)
    assert attention.shape == (2, 3, 2, 12, 12)
    assert values.shape == (2, 3, 2, 12, 8)
    for layer, seen in enumerate(mixed):
        again = (attention[layer] @ values[layer]).transpose(1, 2).flatten(2)
        assert torch.allclose(again, seen, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(logits, model(input_ids=ids).logits, atol=1e-5)
