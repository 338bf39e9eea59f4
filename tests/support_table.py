"""Writes the table of supported architectures: `python -m tests.support_table > docs/architectures.md`."""

from __future__ import annotations

import torch

from mneme.attribution import direct_logit_attribution
from mneme.copying import copying_scores
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from tests.architectures import INSIDE, OUTSIDE, tiny

IDS = torch.arange(18).reshape(2, 9) + 3
HEADER = """# Architectures

Written by `python -m tests.support_table` from the tiny random models of the tests, each with its features switched on;
a test holds this page to it. Every model passes the parity gate, and for those inside the attention interface the tests
also show that the gate fails when a feature is ignored. Other architectures of transformers load the same way; the gate
decides.

- **heads**: capture, pattern probes, ablation, patching, path patching.
- **prefix**: patches reuse the keys and values of a shared prefix.
- **attribution**: direct logit attribution adds up; **circuits**: copying scores from the weights.
- The others run behavior probes only, and say so.
- A prompt is read up to the model's stated length; where rotary frequencies follow from the length of the text
  (LongRoPE, dynamic), up to where they begin to: beyond it a prompt would give other digits beside longer ones.

| architecture | exercises | heads | prefix | attribution | circuits |
|---|---|---|---|---|---|
"""


def applies(question: object) -> str:
    """Yes, or no when the question is refused as not applicable."""
    try:
        question()  # type: ignore[operator]
    except NotApplicable:
        return "no"
    return "yes"


def row(name: str) -> str:
    """One line of the table."""
    lm = LanguageModel(tiny(name), name, None, "cpu")
    what = INSIDE[name][0] if name in INSIDE else "outside the attention interface"
    answers = torch.tensor([3, 4]), torch.tensor([5, 6])
    cells = [
        "yes" if lm.attention else "behavior only",
        "yes" if lm.structure is not None and lm.structure.has_plain_cache else "no",
        applies(lambda: direct_logit_attribution(lm, IDS, *answers)),
        applies(lambda: copying_scores(lm, torch.arange(4))),
    ]
    return f"| {name} | {what} | {' | '.join(cells)} |\n"


def page() -> str:
    """The whole page."""
    return HEADER + "".join(row(name) for name in [*sorted(INSIDE), *sorted(OUTSIDE)])


if __name__ == "__main__":
    print(page(), end="")
