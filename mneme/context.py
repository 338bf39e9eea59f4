"""How many tokens a model reads exactly, whatever else is read beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOVING = ("dynamic", "longrope")  # kinds of rotary positions whose frequencies follow from the length of the text


def exact_context(config: Any) -> int | None:
    """Tokens up to which a prompt gives the same digits alone, beside longer prompts, and after a stored prefix.

    That is `max_position_embeddings` of a text config, or, where rotary frequencies change with the length of the text
    (`longrope`, `dynamic`), the length up to which they do not: beyond it they follow from the longest row of a
    forward, and keys kept of a shorter text are not those of a longer one. None = no limit stated.
    """
    stated: int | None = getattr(config, "max_position_embeddings", None)
    return min([*_lengths_without_change(config, stated), *([] if stated is None else [stated])], default=None)


def _lengths_without_change(config: Any, stated: int | None) -> Iterator[int]:
    given = getattr(config, "rope_parameters", None) or {}
    kinds = [given] if "rope_type" in given else [each for each in given.values() if isinstance(each, dict)]
    for rotary in kinds:
        length = rotary.get("original_max_position_embeddings") or stated
        if rotary.get("rope_type") in MOVING and length is not None:
            yield int(length)
