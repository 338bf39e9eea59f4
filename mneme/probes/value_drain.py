"""How small the value of the first token is beside the values of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.batching import in_batches
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import require_first_token


@probe(
    level="head",
    unit="ratio of norms",
    low=0.0,
    high=None,
    min_tokens=2,
    source="Guo et al. 2024; METHODS 18",
)
def value_drain(lm: LanguageModel, prompts: Promptset, *, progress: Progress = silent) -> Tensor:
    """Norm of the first token's value over the mean norm of the other tokens' values: ||v_0|| / mean ||v_k||.

    Shape:  [item layer head]; heads that share keys and values have one number
    Unit:   ratio; well under 1 = attention to the first token moves nothing, a drained value
    Range:  0 .. unbounded; NaN = a single token, or all other values are 0
    Raises: NotApplicable without a token in front, and for models outside the attention interface.
    Source: METHODS 18 (value-state drain)
    """
    require_first_token(prompts, "value_drain")
    batch = lm.batch(prompts.clean)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        others = part.padding.bool()[:, None, 1:]
        ratios: dict[int, Tensor] = {}

        def watch(call: AttentionCall) -> Tensor:
            norms = call.value.float().norm(dim=-1)
            mean = norms[:, :, 1:].masked_fill(~others, torch.nan).nanmean(dim=2)
            ratio = torch.where(mean > 0, norms[:, :, 0] / mean, torch.nan)
            ratios[call.layer] = ratio.repeat_interleave(call.query.shape[1] // ratio.shape[1], dim=1)
            return call.compute()

        with torch.no_grad(), handled(lm.attention_modules, watch):
            lm.backbone.hidden(part.ids)
        return torch.stack([ratios[layer] for layer in sorted(ratios)], dim=1).cpu()

    return in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
