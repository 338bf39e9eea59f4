"""Groups of scenes that differ in one thing on purpose: one list with its answer elsewhere, or read once and twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mneme.promptset import Promptset
from mneme.scene_prompts import Rejected, SceneReader, promptset_of_scenes
from mneme.stories import Scene


def promptset_of_groups(
    reader: SceneReader,
    draw: Callable[[], Sequence[Scene]],
    n_groups: int,
    facts: Mapping[str, Any],
    dropped: Mapping[str, int],
) -> Promptset:
    """The scenes of `n_groups` groups, one group after another, each a cluster of its own.

    draw: one group, every time of as many scenes. A group one of whose prompts cannot be used, or came before, is
    rejected whole, so that every group is complete; rejects are counted by reason as in `promptset_of_scenes`, which
    raises the same.
    """
    first = draw()
    pending: list[Sequence[Scene]] = [first]
    waiting: list[Scene] = []
    seen: set[tuple[int, ...]] = set()
    n_accepted = 0

    def following() -> Scene:
        nonlocal n_accepted
        if not waiting:
            group = pending.pop() if pending else draw()
            prompts = [tuple(reader.read(each).clean) for each in group]
            if len(set(prompts)) < len(prompts) or seen & set(prompts):
                raise Rejected("the same prompt came before")
            seen.update(prompts)
            waiting.extend(replace(each, cluster=f"group {n_accepted}") for each in reversed(group))
            n_accepted += 1
        return waiting.pop()

    return promptset_of_scenes(reader, following, n_groups * len(first), facts, dropped)
