"""Where over the layers an accuracy jumps, and from where on it stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

JUMP = 1.1
STILL = 0.03


def jump_layer(accuracies: ArrayLike, least: float = JUMP) -> int | None:
    """The first layer whose accuracy is at least `least` times that of the layer before; None where none is.

    Shape: accuracies [layer] in 0 .. 1, above 0. Depth is often told as a share, layer / number of layers.
    Source: METHODS 17; Jin et al. 2024.
    """
    jumps = np.flatnonzero(_ratios(accuracies) >= least)
    return int(jumps[0]) + 1 if len(jumps) else None


def converged_layer(accuracies: ArrayLike, within: float = STILL) -> int | None:
    """The first layer from which on every accuracy differs from the one before by less than `within` of it.

    Shape: accuracies [layer] in 0 .. 1, above 0. None where the last step is still larger.
    Source: METHODS 17; Jin et al. 2024.
    """
    moves = np.flatnonzero(np.abs(_ratios(accuracies) - 1) >= within)
    first = int(moves[-1]) + 2 if len(moves) else 1
    return first if first < len(np.asarray(accuracies)) else None


def _ratios(accuracies: ArrayLike) -> np.ndarray:
    values = np.asarray(accuracies, dtype=np.float64)
    return np.asarray(values[1:] / values[:-1])
