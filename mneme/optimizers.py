"""The optimizers of small models of GPT-2 shape: Muon for hidden matrices, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn


def muon_and_adamw(model: nn.Module, hidden_rate: float = 0.02, rate: float = 3e-3) -> list[torch.optim.Optimizer]:
    """Muon at `hidden_rate` for the matrices of the model's layers, AdamW at `rate` for all else that is trained.

    Layers are found by GPT-2's name for them, `h`.
    """
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    hidden = {name: each for name, each in trained.items() if each.ndim == 2 and ".h." in name}
    rest = [each for name, each in trained.items() if name not in hidden]
    muon = torch.optim.Muon(
        list(hidden.values()), lr=hidden_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"
    )
    return [muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]
