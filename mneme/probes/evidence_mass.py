"""Attention from a question to what answers it."""

from __future__ import annotations

from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.evidence import EVIDENCE, QUERY, Names, Span, masses_of
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of attention",
    low=0.0,
    high=1.0,
    site="attention_inputs",
    source="Li et al. 2026; Zhang et al. 2025 (QRHead); METHODS 2b",
)
def evidence_mass(
    layer: AttentionInputs,
    prompts: Promptset,
    *,
    evidence: Span = EVIDENCE,
    query: Span = QUERY,
    context: Span | None = None,
    gold: str = "told",
) -> Tensor:
    """Attention that the question's tokens put on the evidence: mean over the question, sum over the evidence.

    Shape:  [item head]
    Unit:   fraction of attention
    Range:  0 .. 1; NaN = the evidence lies outside the layer's window. It grows with the length of the evidence and
            with attention that does not rest on the first token: `evidence_share` and `evidence_enrichment` do not
    evidence, query, context: labels of the first and last token; context None = all tokens between the first one and
    the question. gold: `told`, or `shuffled`: as many tokens elsewhere in the context.
    Raises: NotApplicable where the promptset lacks a label; BadInput where the question overlaps the evidence or
            stands before the end of the context, and where the evidence is empty, outside the context or all of it
    Source: METHODS 2b (mass)
    """
    names = Names("evidence_mass", evidence, query, context, gold)
    return masses_of(layer, names.places(prompts)).evidence
