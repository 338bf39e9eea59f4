"""How many times as much attention the evidence gets as an average token of the context."""

from __future__ import annotations

from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.evidence import EVIDENCE, QUERY, Names, Span, masses_of
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="times even attention",
    low=0.0,
    high=None,
    site="attention_inputs",
    source="Li et al. 2026; METHODS 2b",
)
def evidence_enrichment(
    layer: AttentionInputs,
    prompts: Promptset,
    *,
    evidence: Span = EVIDENCE,
    query: Span = QUERY,
    context: Span | None = None,
    gold: str = "told",
) -> Tensor:
    """The share of the evidence over its part of the context: share / (|evidence| / |context|).

    Shape:  [item head]
    Unit:   times what attention spread evenly over the context gives
    Range:  0 .. |context| / |evidence|; 1 = no preference, and what shuffled gold gives on average. NaN as in
            `evidence_share`
    evidence, query, context, gold: as `evidence_mass`, which raises the same
    Source: METHODS 2b (enrichment); differs from it in: in a layer with a window the context is what the question sees
    """
    names = Names("evidence_enrichment", evidence, query, context, gold)
    return masses_of(layer, names.places(prompts)).enrichment()
