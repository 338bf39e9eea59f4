"""Attention to the evidence that a question draws and an empty question in the same place does not."""

from __future__ import annotations

from torch import Tensor

from mneme.drawn_attention import drawn_attention
from mneme.evidence import EVIDENCE, QUERY, Names, Span
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of attention",
    low=-1.0,
    high=1.0,
    source="Zhang et al. 2025 (QRHead); METHODS 2b",
)
def evidence_calibrated(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    evidence: Span = EVIDENCE,
    query: Span = QUERY,
    context: Span | None = None,
    against: str = "blank",
) -> Tensor:
    """Attention of the question to each token of the evidence, minus that of an empty question; summed.

    What a head gives those places whatever is asked (position, sinks, frequent words) cancels. Tokens more than two
    standard deviations below the mean of their evidence are dropped before the sum, as QRHead does.
    Shape:  [item layer head]
    Unit:   fraction of attention
    Range:  -1 .. 1; 0 = the question does not matter. NaN = the evidence lies outside the layer's window
    against: `blank`: every token of the question is replaced by the token in front of it, the end of the context, which
            asks nothing; `corrupt`: the corrupt prompt asks, which may differ from the clean one in the question only
            (`needle` with `corrupt: key`, where the evidence of what is asked is missing)
    evidence, query, context: as `evidence_mass`, which raises the same
    Raises: NotApplicable also where `corrupt` is asked for and corrupt prompts are missing or differ in the context
    Source: METHODS 2b (calibrated); differs from it in: the empty question is made of tokens and as long as the
            question, where QRHead says 'N/A', so that both stand in the same places
    """
    names = Names("evidence_calibrated", evidence, query, context)
    (found,) = drawn_attention(lm, prompts, [names], against, progress)
    return found
