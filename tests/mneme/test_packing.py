"""Pieces in one row equal plain forwards of each prompt, and models for which that fails are told apart."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mneme.encoding import padded
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.packing import Kept, Piece, run_packed
from mneme.shared_prefix import run_shared
from mneme.structure import _states_its_masks
from tests.architectures import INSIDE, tiny

PROMPT = torch.arange(3, 17)
OTHERS = [torch.arange(20, 34), torch.arange(30, 35), torch.tensor([7])]


@cache
def model(name: str) -> LanguageModel:
    return LanguageModel(tiny(name, torch.float64), name, None, "cpu")


def packed(lm: LanguageModel, pieces: list[Piece], watch: Any = lambda *_: None) -> list[Tensor]:
    return run_packed(lm.backbone, lm.attention_modules, pieces, watch)


def alone(lm: LanguageModel, ids: Tensor) -> Tensor:
    return lm.backbone.hidden(ids[None])[0]


def kept_of(lm: LanguageModel, ids: Tensor) -> Kept:
    kept = Kept()

    def keep(call: AttentionCall, _: list[int]) -> None:
        kept.keys.append(call.key)
        kept.values.append(call.value)

    packed(lm, [Piece(ids)], keep)
    return kept


@pytest.mark.parametrize(("name", "block"), [*((name, 4) for name in sorted(INSIDE)), ("llama", 256)])
def test_each_piece_is_as_in_a_forward_of_its_own(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mneme.interception.BLOCK", block)
    lm = model(name)
    assert lm.structure is not None
    assert lm.structure.runs_packed
    kept = kept_of(lm, PROMPT)
    pieces = [Piece(PROMPT), *map(Piece, OTHERS), Piece(PROMPT[9:], 9, kept), Piece(PROMPT[9:].flip(0), 9, kept)]
    found = packed(lm, pieces)
    for prompt, hidden in zip([PROMPT, *OTHERS], found[:4], strict=True):
        torch.testing.assert_close(hidden, alone(lm, prompt), atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(found[4], alone(lm, PROMPT)[9:], atol=1e-7, rtol=1e-5)
    turned = torch.cat([PROMPT[:9], PROMPT[9:].flip(0)])
    torch.testing.assert_close(found[5], alone(lm, turned)[9:], atol=1e-7, rtol=1e-5)


def test_neighbours_of_one_shape_attend_together_and_see_what_is_kept() -> None:
    lm = model("llama")
    kept = kept_of(lm, PROMPT)
    calls: list[tuple[int, list[int], tuple[int, ...], int]] = []

    def note(call: AttentionCall, places: list[int]) -> None:
        calls.append((call.layer, places, tuple(call.query.shape), call.key.shape[2]))
        if places == [2]:
            torch.testing.assert_close(call.key[:, :, :9], kept.keys[call.layer][:, :, :9])

    before = lm.forwards
    packed(lm, [Piece(PROMPT[:5]), Piece(PROMPT[5:10]), Piece(PROMPT[9:], 9, kept)], note)
    assert lm.forwards == before + 1
    assert calls[:2] == [(0, [0, 1], (2, 4, 5, 4), 5), (0, [2], (1, 4, 5, 4), 14)]
    assert [layer for layer, *_ in calls] == [0, 0, 1, 1, 2, 2]


def test_what_a_piece_attends_to_is_what_its_prompt_does() -> None:
    lm = model("mistral")  # whose window is cut
    kept = kept_of(lm, PROMPT)
    rows: list[list[Tensor]] = [[], []]

    def note(call: AttentionCall, places: list[int]) -> None:
        n_last = torch.arange(call.query.shape[2] - 5, call.query.shape[2])
        rows[len(places) - 1].append(call.inputs(torch.tensor([14] * len(places))).rows(n_last))

    packed(lm, [Piece(PROMPT)], note)
    packed(lm, [Piece(PROMPT[9:], 9, kept)] * 2, note)
    for whole, pieces in zip(*rows, strict=True):
        assert (whole[..., 0] == 0).all()
        torch.testing.assert_close(pieces, whole.expand_as(pieces))


class _Mixing(nn.Module):
    """A module that lets each token see the one before it in the row, as a short convolution does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.as_tensor(self.inner(hidden + F.pad(hidden[:, :-1], (0, 0, 1, 0)) * 0.5))


def test_a_model_that_mixes_tokens_elsewhere_is_neither_packed_nor_resumed_and_stays_exact() -> None:
    hf: Any = tiny("llama", torch.float64)
    hf.model.layers[1].mlp = _Mixing(hf.model.layers[1].mlp).eval()
    lm = LanguageModel(hf, "mixing", None, "cpu")
    assert lm.structure is not None
    assert not lm.structure.runs_packed
    assert not lm.structure.has_plain_cache  # a forward that goes on from keys and values would miss what it mixes
    rows = [[*PROMPT.tolist(), 5], [*PROMPT.tolist(), 6]]
    hidden = run_shared(lm, padded(rows), torch.tensor([[14], [14]]), lambda *_: None)
    for item, row in enumerate(rows):
        torch.testing.assert_close(hidden[item, 0], alone(lm, torch.tensor(row))[-1], atol=1e-9, rtol=1e-7)


CHUNKS = {"attention_chunk_size": 6, "layer_types": ["chunked_attention", "chunked_attention", "full_attention"]}


def test_a_model_that_reads_its_text_in_chunks_is_not_packed_and_stays_exact() -> None:
    lm = LanguageModel(tiny("llama4_text", torch.float64, **CHUNKS), "chunked", None, "cpu")
    assert lm.structure is not None
    assert not lm.structure.runs_packed
    rows = [[*PROMPT.tolist(), 5], [*PROMPT.tolist(), 6]]
    hidden = run_shared(lm, padded(rows), torch.tensor([[14], [14]]), lambda *_: None)
    for item, row in enumerate(rows):
        torch.testing.assert_close(hidden[item, 0], alone(lm, torch.tensor(row))[-1], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "windows", "is_stated"),
    [
        ({}, [None, None], True),
        ({"sliding_window": 6}, [6, 6], True),
        ({"sliding_window": 6}, [None, None], False),  # its mask cuts what its attention calls do not name
        ({"sliding_window": 6, "use_sliding_window": False}, [None, None], True),
        ({"layer_types": ["sliding_attention", "full_attention"]}, [6, None], True),
        ({"layer_types": ["sliding_attention", "full_attention"]}, [None, None], False),
        ({"layer_types": ["chunked_attention", "full_attention"]}, [None, None], False),
        ({"attention_chunk_size": 6}, [None, None], False),
    ],
)
def test_masks_are_stated_by_windows_that_calls_name(
    settings: dict[str, Any], windows: list[int | None], is_stated: bool
) -> None:
    assert _states_its_masks(SimpleNamespace(**settings), dict(enumerate(windows))) is is_stated


def test_a_model_that_takes_no_positions_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    hf: Any = tiny("llama", torch.float64)
    inner = hf.model.forward

    def forward(input_ids: Tensor, **options: Any) -> Any:
        return inner(input_ids=input_ids, **options)

    monkeypatch.setattr(hf.model, "forward", forward)
    lm = LanguageModel(hf, "without positions", None, "cpu")
    assert lm.structure is not None
    assert not lm.structure.runs_packed
