"""What a model of the micro-world is shown, and when: first to copy, then to recall, then everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mneme.microworld.documents import BEHAVIORS, INDUCTION, Document, Library

# How often a document of each behavior is drawn.
RECALL: Mapping[str, float] = {
    **dict.fromkeys(BEHAVIORS, 1.0),
    INDUCTION: 6.0,
    "colored_objects": 2.0,
    "needle": 2.0,
    "key_value_recall": 2.5,
    "entity_binding": 1.5,
    "boxes": 1.5,
    "counterfactual_facts": 1.5,
    "ioi": 0.5,
    "greater_than": 0.5,
    "agreement": 0.5,
    "multiple_choice": 0.5,
    "sequence_order": 0.3,
    "docstring": 0.5,
}
WHOLE: Mapping[str, float] = {
    INDUCTION: 0.8,
    "verbatim_list": 0.6,
    "key_value_recall": 0.6,
    "counterfactual_facts": 0.8,
    "greater_than": 0.6,
    "agreement": 1.0,
    "stored_facts": 1.2,
    "needle": 1.2,
    "ioi": 2.0,
    "sequence_order": 1.5,
    "docstring": 1.5,
    "multiple_choice": 2.0,
    "colored_objects": 2.5,
    "boxes": 2.5,
    "entity_binding": 2.5,
}
_FEW_WORDS = 128
_ROW = 64
_PERIODS = (5, 32)


@dataclass(frozen=True)
class Lessons:
    """Three lessons, by the step at which the first two end.

    Copying: rows of few words that repeat with a period of 5 to 32, which is where the circuit of induction appears
    within some 300 steps; with all words it takes several times as many. Recalling: all behaviors, a third of the
    documents repeated lists over all words. Whole: all behaviors, those that bind words to each other more often.
    """

    copying_ends: int
    recalling_ends: int

    def first_step(self, step: int) -> int:
        """The last step before the lesson that a step belongs to."""
        return max(ends for ends in (0, self.copying_ends, self.recalling_ends) if ends < step)

    def is_copying(self, step: int) -> bool:
        """Whether a step belongs to the first lesson."""
        return step <= self.copying_ends

    def draw(self, library: Library, rng: np.random.Generator, step: int) -> Document:
        """A document of the lesson that a step belongs to."""
        if self.is_copying(step):
            period = int(rng.integers(_PERIODS[0], _PERIODS[1] + 1))
            return library.repeated(rng, library.few_words(_FEW_WORDS), period, _ROW)
        return library.draw(rng, RECALL if step <= self.recalling_ends else WHOLE)
