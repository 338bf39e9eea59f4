"""How much of the attention to a context goes to what answers the question."""

from __future__ import annotations

from torch import Tensor

from mneme.attention import AttentionInputs
from mneme.evidence import EVIDENCE, QUERY, Names, Span, masses_of
from mneme.probe import probe
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="fraction of attention to the context",
    low=0.0,
    high=1.0,
    site="attention_inputs",
    source="Li et al. 2026; Zhang et al. 2025 (QRHead); METHODS 2b",
)
def evidence_share(
    layer: AttentionInputs,
    prompts: Promptset,
    *,
    evidence: Span = EVIDENCE,
    query: Span = QUERY,
    context: Span | None = None,
    gold: str = "told",
) -> Tensor:
    """Attention of the question to the evidence, over that to the whole context without the first token.

    Shape:  [item head]
    Unit:   fraction of the attention to the context
    Range:  0 .. 1; uniform attention has |evidence| / |context|. NaN = the context gets no attention, or the evidence
            lies outside the layer's window
    evidence, query, context, gold: as `evidence_mass`, which raises the same
    Source: METHODS 2b (share)
    """
    names = Names("evidence_share", evidence, query, context, gold)
    return masses_of(layer, names.places(prompts)).share()
