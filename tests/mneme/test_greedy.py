"""Greedy decoding equals a plain forward of the whole text at every step."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from mneme.encoding import padded
from mneme.errors import BadInput, NotApplicable
from mneme.greedy import decode_greedily
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from tests.architectures import INSIDE, tiny

TRUNK = [1, 5, 9, 12, 7, 3, 8, 11, 24, 13]
ROWS = [TRUNK[:8], [1, 4, 22, 31, 6, 2, 19, 30], [1, 14, 15], [*TRUNK, 33, 34], [*TRUNK, 2]]
N_STEPS = 5


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def slow(lm: LanguageModel, row: list[int]) -> list[int]:
    """One whole forward a step."""
    said: list[int] = []
    for _ in range(N_STEPS):
        said.append(int(lm.hf(torch.tensor([[*row, *said]]), use_cache=False).logits[0, -1].argmax()))
    return said


def never(_: int) -> bool:
    return False


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_every_token_is_the_one_that_a_plain_forward_gives(name: str) -> None:
    lm = model(name)
    said = decode_greedily(lm, padded(ROWS), N_STEPS, never)
    assert said.tolist() == [slow(lm, row) for row in ROWS]


def test_few_prompts_at_a_time_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("llama")
    whole = decode_greedily(lm, padded(ROWS), N_STEPS, never)
    monkeypatch.setattr("mneme.batching.STORED_ELEMENTS", 1)
    monkeypatch.setattr("mneme.batching.CPU_ELEMENTS", 1)
    told: list[int] = []
    again = decode_greedily(lm, padded(ROWS), N_STEPS, never, progress=lambda done, *_: told.append(done))
    assert again.tolist() == whole.tolist()
    assert told == [1, 2, 3, 4, 5]


def test_what_prompts_share_is_read_once() -> None:
    lm = model("llama")
    n_read: list[int] = []

    def visit(call: AttentionCall, items: Tensor, step: int) -> None:
        if call.layer == 0 and step == 0:
            n_read.append(len(items) * call.query.shape[2])

    decode_greedily(lm, padded(ROWS), 1, never, visit)
    assert sum(n_read) == sum(len(row) for row in ROWS) - len(TRUNK)  # the first row is too short for a branch


def test_attention_at_each_step_is_that_of_the_whole_text() -> None:
    lm = model("gemma2")  # soft caps and, in every other layer, a window
    found: dict[tuple[int, int], Tensor] = {}

    def visit(call: AttentionCall, items: Tensor, step: int) -> None:
        rows = call.inputs(torch.full((len(items),), call.key.shape[2])).rows([call.query.shape[2] - 1])
        for place, item in enumerate(items.tolist()):
            if item == 0:
                found[step, call.layer] = rows[place, :, 0]

    said = decode_greedily(lm, padded(ROWS), N_STEPS, never, visit)
    for step in range(N_STEPS):
        lm.hf.set_attn_implementation("eager")
        text = torch.tensor([[*ROWS[0], *said[0, :step].tolist()]])
        eager = lm.hf(text, use_cache=False, output_attentions=True).attentions
        lm.hf.set_attn_implementation("mneme")
        for layer in range(lm.n_layers):
            torch.testing.assert_close(
                found[step, layer], eager[layer][0, :, -1], atol=1e-6, rtol=1e-5
            )  # eager softmax is float32


def test_a_response_ends_before_its_last_token_and_others_go_on() -> None:
    lm = model("gpt2")
    whole = [slow(lm, row) for row in ROWS]
    last = whole[0][2]
    said = decode_greedily(lm, padded(ROWS), N_STEPS, lambda token: token == last).tolist()
    for row, expected in zip(said, whole, strict=True):
        end = expected.index(last) if last in expected else N_STEPS
        assert row == [*expected[:end], *[-1] * (N_STEPS - end)]


def test_the_context_ends_a_response_too() -> None:
    lm = model("gpt2")
    row = [1 + each % 38 for each in range(62)]  # of 64
    said = decode_greedily(lm, padded([row]), N_STEPS, never)
    assert (said[0] >= 0).tolist() == [True, True, True, False, False]


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(BadInput, match="n_steps is 0: give a whole number of at least 1"):
        decode_greedily(model("gpt2"), padded(ROWS), 0, never)
    alone = LanguageModel(tiny("llama"), "alone", None, "cpu")
    assert alone.structure is not None
    alone.structure = replace(alone.structure, runs_packed=False)
    with pytest.raises(NotApplicable, match="alone cannot go on from the keys and values of what it has read"):
        decode_greedily(alone, padded(ROWS), 2, never)
    with pytest.raises(NotApplicable, match="attention interface"):
        decode_greedily(LanguageModel(tiny("bloom"), "bloom", None, "cpu"), padded(ROWS), 2, never)
