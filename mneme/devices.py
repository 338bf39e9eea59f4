"""Whether a device to compute on is there."""

from __future__ import annotations

import torch

from mneme.errors import BadInput


def check_device(device: str) -> None:
    """Raises BadInput unless `device` (cpu, cuda, cuda:<index>, mps) can be used on this machine."""
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, _, index = device.partition(":")
    if (index and not index.isdecimal()) or int(index or 0) >= counts.get(kind, 0):
        usable = [name for name, count in counts.items() if count] + [f"cuda:{each}" for each in range(counts["cuda"])]
        raise BadInput(f"device '{device}' is not available here: use one of {', '.join(usable)}")
