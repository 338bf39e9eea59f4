"""The neurons of a model's MLPs: what enters the last matrix of each, found from the running model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import require_structure
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.structure import LayerParts, first_of


@torch.no_grad()
def neuron_activations(lm: LanguageModel, batch: Batch) -> list[Tensor]:
    """What the neurons of each layer's MLP say at each token: [item position neuron] by layer.

    The neurons are the input of the last module outside of attention that multiplies by a matrix and gives the width
    of the residual stream. Raises: NotApplicable where there is none, as with experts, whose neurons differ by token.
    """
    inputs: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            given, result = args[0], first_of(output)
            is_of_every_token = given.numel() == batch.ids.numel() * given.shape[-1]
            if is_of_every_token and result.shape[-1] == lm.d_model:
                inputs[layer] = given.reshape(*batch.ids.shape, -1)

        return hook

    with ExitStack() as stack:
        for layer, part in enumerate(require_structure(lm).parts):
            for module in _matrices(part):
                stack.callback(module.register_forward_hook(keep(layer)).remove)
        lm.backbone.hidden(batch.ids)
    if len(inputs) < lm.n_layers:
        raise NotApplicable(f"{lm.name}: the neurons of its MLPs were not found")
    return [inputs[layer] for layer in range(lm.n_layers)]


def most_active(activations: Tensor, k: int) -> Tensor:
    """Which neurons are among the k largest in absolute value at each token: [item position neuron] bool."""
    places = activations.abs().topk(k, dim=-1).indices
    return torch.zeros_like(activations, dtype=torch.bool).scatter_(-1, places, True)


def _matrices(part: LayerParts) -> list[nn.Module]:
    """Modules of a layer, those of its attention left out, that hold a matrix."""
    attention = set(part.attention.modules())
    return [
        module
        for module in part.layer.modules()
        if module not in attention
        and isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.ndim == 2
    ]
