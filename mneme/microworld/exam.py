"""What a model of the micro-world has learnt: its accuracy on held-out scenes of each behavior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mneme.microworld.documents import BEHAVIORS, INDUCTION, scene_of
from mneme.promptset import Promptset, Vocabulary
from mneme.promptsets.repeated_tokens import repeated_tokens
from mneme.scene_prompts import SceneReader, promptset_of_scenes
from mneme.training import Measure, measured_mean
from mneme.words import Words

_SEED = 2**30 + 1
_ROWS = 32


class Exam:
    """Held-out prompts of every behavior, as hard as the training documents are."""

    def __init__(self, vocabulary: Vocabulary, n_items: int, behaviors: Sequence[str] = BEHAVIORS) -> None:
        self._prompts = {each: _prompts(vocabulary, each, n_items) for each in behaviors}

    def measure(self, model: Any) -> dict[str, Measure]:
        """Share of right answers by behavior, with its interval over prompts.

        An answer is right where the correct words together are likelier than the wrong ones; in `induction`, where the
        next token of a repeated list is the likeliest of all, a share for each prompt.
        """
        return {name: measured_mean(_right(model, name, prompts).numpy()) for name, prompts in self._prompts.items()}


def _prompts(vocabulary: Vocabulary, behavior: str, n_items: int) -> Promptset:
    if behavior == INDUCTION:
        return repeated_tokens(vocabulary, seed=_SEED, n_items=max(1, n_items // 4))
    words, rng, make = Words("evaluation", vocabulary), np.random.default_rng(_SEED), scene_of(behavior)
    return promptset_of_scenes(SceneReader(vocabulary, behavior), lambda: make(rng, words), n_items, {}, {})


def _right(model: Any, behavior: str, prompts: Promptset) -> Tensor:
    """[item] share of right answers."""
    rights = []
    for start in range(0, len(prompts), _ROWS):
        part = prompts.select(slice(start, start + _ROWS))
        logits = model(part.clean.ids).logits.float()
        if behavior == INDUCTION:
            from_here = prompts.facts["offset"] + prompts.facts["period"]
            rights.append((logits[:, from_here:-1].argmax(-1) == part.clean.ids[:, from_here + 1 :]).float().mean(1))
        else:
            last = logits[torch.arange(len(part)), part.clean.lengths - 1].log_softmax(-1)
            correct, wrong = (_mass(last, cast(Tensor, each)) for each in (part.correct_ids, part.wrong_ids))
            rights.append((correct > wrong).float())
    return torch.cat(rights)


def _mass(log_probabilities: Tensor, answers: Tensor) -> Tensor:
    """[item] log of the probability of all answers together; -1 pads."""
    chosen = log_probabilities.gather(1, answers.clamp(min=0))
    return chosen.masked_fill(answers < 0, -torch.inf).logsumexp(1)
