"""A model is asked for no more tokens than it reads exactly beside others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mneme.context import exact_context
from mneme.encoding import padded
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.shared_prefix import run_shared
from tests.architectures import tiny

LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.0],
    "long_factor": [3.0, 7.0],
    "original_max_position_embeddings": 16,
    "factor": 4.0,
}


def config(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(**settings)


def test_the_stated_length_holds_where_positions_stay_what_they_are() -> None:
    assert exact_context(config()) is None
    assert exact_context(config(max_position_embeddings=64)) == 64
    yarn = {"rope_type": "yarn", "original_max_position_embeddings": 16}
    assert exact_context(config(max_position_embeddings=64, rope_parameters=yarn)) == 64
    by_kind = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "linear"}}
    assert exact_context(config(max_position_embeddings=64, rope_parameters=by_kind)) == 64


def test_it_ends_where_frequencies_begin_to_follow_the_text() -> None:
    assert exact_context(config(max_position_embeddings=64, rope_parameters=LONG)) == 16
    assert exact_context(config(max_position_embeddings=64, rope_parameters={"rope_type": "dynamic"})) == 64
    by_kind = {"full_attention": LONG, "sliding_attention": {"rope_type": "default"}}
    assert exact_context(config(max_position_embeddings=64, rope_parameters=by_kind)) == 16


def test_the_stock_model_itself_shows_why() -> None:
    hf = tiny("phi3", torch.float64, rope_parameters=LONG, original_max_position_embeddings=16, sliding_window=None)
    short = torch.arange(3, 15)[None]
    long = torch.arange(3, 27)[None]
    alone = hf(input_ids=short).logits
    padded_up = hf(input_ids=torch.cat([short, torch.zeros(1, 12, dtype=torch.int64)], dim=1)).logits[:, :12]
    assert not torch.allclose(alone, padded_up, atol=1e-3)  # what stands behind changes what stands before
    assert not torch.allclose(alone, hf(input_ids=long).logits[:, :12], atol=1e-3)


def test_longer_prompts_are_refused_and_shorter_ones_are_exact_in_company() -> None:
    changes = {"rope_parameters": LONG, "original_max_position_embeddings": 16, "sliding_window": None}
    lm = LanguageModel(tiny("phi3", torch.float64, **changes), "phi3", None, "cpu")
    rows = [list(range(3, 19)), [*range(3, 13), 30, 31]]
    last = torch.tensor([[15], [11]])
    hidden = run_shared(lm, padded(rows), last, lambda *_: None)
    for item, row in enumerate(rows):
        plain = lm.hf.base_model(input_ids=torch.tensor([row])).last_hidden_state[:, -1]
        torch.testing.assert_close(hidden[item], plain, atol=1e-7, rtol=1e-5)
    with pytest.raises(BadInput, match=r"exceed the 16 of phi3, beyond which its rotary frequencies .* states 64"):
        lm.batch(torch.arange(3, 20)[None])
