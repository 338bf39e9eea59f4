"""Named arrays on disk: safetensors, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_arrays(arrays: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors to a safetensors file; the same arrays give the same bytes."""
    save_file({name: arrays[name].detach().to("cpu").contiguous() for name in sorted(arrays)}, str(path))


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file."""
    loaded: dict[str, torch.Tensor] = load_file(str(path))
    return loaded
