"""Which heads two behaviors share, at one stage of their circuits, and whether by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mneme.arguments import number_between
from mneme.circuit_overlap import set_overlap
from mneme.curve import Curve
from mneme.errors import BadInput, NotApplicable
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.path_stages import heads_in, stage_effects, top_heads
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

OF_HEADS = ("layer", "head", "is_here", "is_there", "effect_here", "effect_there")


@probe(
    level="curve",
    unit="heads",
    low=0.0,
    high=None,
    ranks_with="rank_by",
    curves={
        "n_shared": ("share_of_heads", "heads", 0.0, None),
        "n_here": ("share_of_heads", "heads", 0.0, None),
        "n_there": ("share_of_heads", "heads", 0.0, None),
        "jaccard": ("share_of_heads", "fraction of heads", 0.0, 1.0),
        "overlap_coefficient": ("share_of_heads", "fraction of heads", 0.0, 1.0),
        "p_value": ("share_of_heads", "probability", 0.0, 1.0),
        "layer": ("place", "layer", 0.0, None),
        "head": ("place", "head", 0.0, None),
        "is_here": ("place", "yes or no", 0.0, 1.0),
        "is_there": ("place", "yes or no", 0.0, 1.0),
        "effect_here": ("place", "logits", None, None),
        "effect_there": ("place", "logits", None, None),
    },
    source="Merullo et al. 2023; METHODS 5c, 6e",
)
def head_reuse(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,  # noqa: ARG001  nothing is drawn
    progress: Progress = silent,
    stage: str = "logits",
    share: float = 0.02,
    shares: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    rank_by: str = "path_patching",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
) -> dict[str, Curve]:
    """Heads among the top of a stage of path patching, here and on another promptset.

    Shape:  curves [item point], every number but `effect_here` the same for all prompts: it is one of the promptsets
    Unit:   heads and shares of them; `p_value` the probability that two random sets of these sizes share as many.
            Over `place`, one for each head that is among the top `share` of either, shared ones first: `layer`, `head`,
            `is_here`, `is_there` (1 or 0), and its effects in logits; one point of NaN where no head has an effect
    Range:  `overlap_coefficient` is shared by the smaller set; it and `jaccard` are NaN where a set is empty
    stage, share: as in `path_patching`, by which `rank_by` must rank with the same ones
    shares: of all heads, how many count as the top, by absolute mean effect; heads without effect never count
    rank_on: the other promptset

    Raises: NotApplicable as `path_patching`; BadInput for bad shares
    Source: METHODS 5c (top 2 % of every stage, shared and total), 6e (hypergeometric, right tail)
    """
    if not isinstance(shares, list | tuple) or not shares:
        raise BadInput(f"head_reuse.shares is {shares!r}: give a list of shares of all heads, such as [0.02, 0.1]")
    x = sorted({number_between("head_reuse.shares", each, 0.0, 1.0) for each in shares})
    if prompts.corrupt is None or prompts.correct_ids is None or "end" not in prompts.clean.labels:
        raise NotApplicable("head_reuse needs clean and corrupt prompts with answers and the label end")
    corrupt = replace(prompts.corrupt, labels=prompts.clean.labels)
    here = stage_effects(lm, prompts.clean, corrupt, primary_readout(prompts), stage, share, progress=progress)
    found = [set_overlap(top_heads(here, each), top_heads(ranking.scores, each)) for each in x]
    columns: dict[str, list[float]] = {
        "n_shared": [each.n_shared for each in found],
        "n_here": [each.n_a for each in found],
        "n_there": [each.n_b for each in found],
        "jaccard": [each.jaccard for each in found],
        "overlap_coefficient": [each.coefficient for each in found],
        "p_value": [each.p_value for each in found],
    }
    points = torch.tensor(x, dtype=torch.float64)
    counted = {name: Curve(points, _of_every_prompt(values, len(prompts))) for name, values in columns.items()}
    return counted | _named(here, ranking.scores, share)


def _named(here: Tensor, there: Tensor, share: float) -> dict[str, Curve]:
    """The heads among the top of either, shared ones first, by place."""
    tops = top_heads(here, share), top_heads(there, share)
    either = sorted(heads_in(tops[0] | tops[1]), key=lambda head: (-int(tops[0][head]) - int(tops[1][head]), head))
    points = torch.arange(1.0, max(1, len(either)) + 1, dtype=torch.float64)
    if not either:
        blank = torch.full((len(here), 1), torch.nan, dtype=torch.float64)
        return {name: Curve(points, blank) for name in OF_HEADS}
    mean = there.double().nanmean(dim=0)
    columns: dict[str, Sequence[float]] = {
        "layer": [head[0] for head in either],
        "head": [head[1] for head in either],
        "is_here": [float(tops[0][head]) for head in either],
        "is_there": [float(tops[1][head]) for head in either],
        "effect_there": [float(mean[head]) for head in either],
    }
    found = {name: Curve(points, _of_every_prompt(values, len(here))) for name, values in columns.items()}
    return found | {"effect_here": Curve(points, torch.stack([here[:, *head] for head in either], dim=1).double())}


def _of_every_prompt(values: Sequence[float], n_items: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).expand(n_items, -1)
