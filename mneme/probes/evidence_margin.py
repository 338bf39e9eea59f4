"""By how much a question draws more attention to the document that answers it than to the best other one."""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor

from mneme.drawn_attention import drawn_attention
from mneme.errors import BadInput, NotApplicable
from mneme.evidence import QUERY, Names, Span
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

WHO = "evidence_margin"
DOCUMENTS = ("key_{}", "target_{}")


@probe(
    level="head",
    unit="fraction of attention",
    low=-2.0,
    high=2.0,
    source="Zhang et al. 2025 (QRHead); METHODS 2b",
)
def evidence_margin(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    evidence: Span = ("key", "target"),
    query: Span = QUERY,
    context: Span | None = None,
    documents: Span = DOCUMENTS,
    against: str = "blank",
) -> Tensor:
    """Score of the gold document minus that of its best distractor; a document's score is `evidence_calibrated` of it.

    Shape:  [item layer head]
    Unit:   fraction of attention
    Range:  -2 .. 2; 0 = some other document draws as much; NaN = a document lies outside the layer's window
    documents: labels of the first and last token of each, {} standing for its number from 0; those that overlap the
            evidence are the gold document and no distractor
    evidence, query, context: as `evidence_mass`, which raises the same; against: as in `evidence_calibrated`
    Raises: NotApplicable also where the promptset labels no such documents; BadInput for documents without {}, and
            where a prompt has no document beside its evidence
    Source: METHODS 2b (margin = gold document - best distractor)
    """
    gold = Names(WHO, evidence, query, context)
    spans = [Names(WHO, span, query, context) for span in _labelled(prompts, documents)]
    told = gold.places(prompts).evidence
    is_other = torch.stack([~(names.places(prompts).evidence & told).any(dim=1) for names in spans])
    if bool((~is_other.any(dim=0)).any()):
        item = int((~is_other.any(dim=0)).nonzero()[0])
        raise BadInput(f"{WHO}.documents: prompt {item} has no document beside its evidence: name all of them")
    own, *others = drawn_attention(lm, prompts, [gold, *spans], against, progress)
    best = torch.stack(others).masked_fill(~is_other[:, :, None, None], -torch.inf).amax(dim=0)
    return own - best


def _labelled(prompts: Promptset, documents: Span) -> list[tuple[str, str]]:
    """Labels of the first and last token of each document."""
    if isinstance(documents, str) or len(documents) != 2 or not all("{}" in str(each) for each in documents):
        raise BadInput(
            f"{WHO}.documents is {documents!r}: give two labels with {{}} for the number, such as {DOCUMENTS}"
        )
    found: list[tuple[str, str]] = []
    for number in count():
        span = str(documents[0]).format(number), str(documents[1]).format(number)
        if not set(span) <= prompts.clean.labels.keys():
            break
        found.append(span)
    if not found:
        raise NotApplicable(
            f"{WHO}.documents names the labels '{span[0]}' and '{span[1]}', which this promptset lacks; it has "
            f"{', '.join(sorted(prompts.clean.labels))}"
        )
    return found
