"""What scaling the output of one head costs on a text that has nothing to do with what the head was chosen for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.alphas import alpha_axis
from mneme.conflict_heads import curves_of_heads
from mneme.curve import Curve, among_all
from mneme.errors import NotApplicable
from mneme.head_losses import mean_log_probability
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="nats",
    low=0.0,
    high=None,
    ranks_with="rank_by",
    curves={
        "scaled_loss": ("alpha", "nats", 0.0, None),
        "control_scaled_loss": ("alpha", "nats", 0.0, None),
        "layer": ("rank", "layer", 0.0, None),
        "head": ("rank", "head", 0.0, None),
    },
    source="Yu et al. 2023; METHODS 10a",
)
def value_scaling_loss(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    rank_by: str = "ph3_importance[attribution]",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    alphas: Sequence[float] = (-5, -2, -1, 0, 0.5, 1, 2, 3, 5),
) -> dict[str, Curve]:
    """Loss on a text when Z of the first head of a ranking is multiplied by alpha at all positions.

    Unit:   `scaled_loss`: mean loss over all next tokens of the prompt, nats a token, so that exp of it is the
            perplexity; `control_scaled_loss`: the mean over the other heads of that layer, scaled one at a time, NaN
            where there are none; `layer`, `head`: which head it was
    x:      alpha, 1 among them whatever `alphas` says: the unchanged model
    rank_by: the probe that ranks the heads, `name` or `name[variant]`; by default what `value_scaling` scales, the head
            that writes most for the context's answer
    rank_on: another promptset on which it ranks them; all prompts are then tested. Without it the head is chosen on
            one half of the prompts, on which the curves are NaN
    Raises: BadInput for alphas that are no numbers; NotApplicable where the ranking measured no head, and for prompts
            of one token
    Source: METHODS 10a (perplexity on neutral text under alpha); `value_scaling` changes the last position alone, which
            foretells one token; a text has no such place, so all positions are changed
    """
    x = alpha_axis("value_scaling_loss", alphas)
    order, is_tested = ranking.chosen(prompts, probe_seed)
    if not order:
        raise NotApplicable("value_scaling_loss: the ranking measured no head")
    if int(prompts.clean.lengths.min()) < 2:
        raise NotApplicable("value_scaling_loss needs prompts of two tokens at least")
    layer, head = order[0]
    sets = [[order[0]], *([(layer, other)] for other in range(lm.n_heads) if other != head)]
    batch = prompts.select(is_tested).clean
    readout = mean_log_probability(lm.batch(batch))
    losses: list[Tensor] = []
    for done, alpha in enumerate(x.tolist()):
        losses.append(-ablate_head_sets(lm, batch, readout, sets, "scale", factor=alpha).double().cpu())
        progress(done + 1, len(x))
    found = torch.stack(losses, dim=1)
    curves = {"scaled_loss": found[:, :, 0], "control_scaled_loss": found[:, :, 1:].mean(dim=2)}
    return {name: Curve(x, among_all(values, is_tested)) for name, values in curves.items()} | curves_of_heads(
        order[:1], is_tested
    )
