"""Layers that hardly change a token's norm, and a model that skips them for that token."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import require_structure
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.structure import first_of

LEAST_LAYERS = 4


def norm_changes(states: Tensor) -> Tensor:
    """| ||h_(l+1)|| - ||h_l|| | of states [item layer position width]: [item position layer], one layer fewer."""
    norms: Tensor = _widened(states).norm(dim=-1)
    return norms.diff(dim=1).abs().transpose(1, 2)


def relative_changes(states: Tensor) -> Tensor:
    """||h_(l+1) - h_l|| / ||h_l||: [item position layer]; sees a rotation, which `norm_changes` does not."""
    wide = _widened(states)
    changes: Tensor = wide.diff(dim=1).norm(dim=-1)
    norms: Tensor = wide[:, :-1].norm(dim=-1)
    return (changes / norms).transpose(1, 2)


def turns(states: Tensor) -> Tensor:
    """1 - cos(h_l, h_(l+1)), the block influence of each layer: [item position layer], 0 .. 2."""
    wide = _widened(states)
    return 1 - torch.nn.functional.cosine_similarity(wide[:, :-1], wide[:, 1:], dim=-1).transpose(1, 2)


def void_layers_of(changes: Tensor, alpha: float) -> Tensor:
    """Which layers are void for a token: changes [... layer] -> [... layer] bool.

    Layer l is void where its change is below alpha times (largest - smallest change of the layers 0 .. l). Layer 0,
    which has nothing to be compared with, never is.
    Source: Shemiranifar 2025; METHODS 19f. Raises: BadInput for alpha outside (0, 1].
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1:
        raise BadInput(f"alpha is {alpha!r}: give a number above 0 and up to 1")
    spread = changes.cummax(dim=-1).values - changes.cummin(dim=-1).values
    return changes < alpha * spread


def check_depth(lm: LanguageModel, who: str) -> None:
    """Refuse models in which void layers mean nothing; raises NotApplicable."""
    require_structure(lm)
    if lm.n_layers < LEAST_LAYERS:
        raise NotApplicable(f"{who} compares layers and needs {LEAST_LAYERS} at least: {lm.name} has {lm.n_layers}")


def hidden_with_skips(lm: LanguageModel, batch: Batch, skipped: Tensor) -> Tensor:
    """Final hidden states where a token leaves a skipped layer as it entered it: [item position d_model].

    skipped [item position layer] bool. The other tokens still see the keys and values that a skipping token has there.
    """
    parts = require_structure(lm).parts

    def hook(layer: int) -> Any:
        def pass_on(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
            entered, left = args[0] if args else options["hidden_states"], first_of(output)
            kept = torch.where(skipped[:, :, layer, None], entered, left)
            return (kept, *output[1:]) if isinstance(output, tuple) else kept

        return pass_on

    with ExitStack() as stack:
        for layer, part in enumerate(parts):
            handle = part.layer.register_forward_hook(hook(layer), with_kwargs=True)
            stack.callback(handle.remove)
        return lm.backbone.hidden(batch.ids)


def _widened(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
