"""What a head is worth to the loss on a text."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import one_of
from mneme.head_losses import KINDS, loss_changes
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="head",
    unit="nats",
    low=None,
    high=None,
    min_tokens=16,
    one_length=True,
    source="Guo et al. 2024; METHODS 18",
)
def head_loss_change(
    lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent, kind: str = "zero"
) -> Tensor:
    """Loss with the head changed minus loss of the whole model, mean over all next tokens of the prompt.

    Shape:  [item layer head]
    Unit:   nats a token; positive = the head is of use on this text
    Range:  unbounded; 0 = the head changes nothing
    kind:   `zero`: its output is 0; `to_first`: all its attention is moved to the first token. Where both do little
            harm the head is dormant; where `to_first` does none, its attention to other tokens moves nothing
    Raises: BadInput for another kind; NotApplicable for prompts under 16 tokens or of several lengths, and for models
            outside the attention interface.
    Source: METHODS 18 (interventions)
    """
    return loss_changes(lm, prompts.clean, one_of("head_loss_change.kind", kind, KINDS), progress)
