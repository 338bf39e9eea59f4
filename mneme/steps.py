"""Which steps of a training are kept: known without torch, so that a study can be checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from mneme.arguments import whole_number
from mneme.errors import BadInput

LOG_SPACED = "log_spaced"


def log_spaced(max_steps: int) -> tuple[int, ...]:
    """0, 1, 2, 4, ... and `max_steps`."""
    powers = [2**each for each in range(max_steps.bit_length()) if 2**each < max_steps]
    return (0, *powers, max_steps)


def kept_steps(place: str, keep: Sequence[int] | str, max_steps: int) -> tuple[int, ...]:
    """A recipe's `keep` as steps in order: a list of steps, or `log_spaced`; raises BadInput for anything else."""
    if keep == LOG_SPACED:
        return log_spaced(max_steps)
    if isinstance(keep, str):
        raise BadInput(f"{place} is {keep!r}: give a list of steps, or {LOG_SPACED}")
    return tuple(sorted({whole_number(f"a step of {place}", each, 0, max_steps) for each in keep}))
