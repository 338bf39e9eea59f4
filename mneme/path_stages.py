"""A circuit of heads traced backwards by path patching: to the logits, to the queries of what writes there, and on."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.arguments import number_between, one_of
from mneme.batch import Batch
from mneme.controls import Head
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.paths import Receivers, path_patch
from mneme.progress import Progress, silent
from mneme.readouts import Readout

Stage = Literal["logits", "queries", "values"]
STAGES = get_args(Stage)


def stage_effects(  # noqa: PLR0913  the parts of one question
    lm: LanguageModel,
    clean: Batch,
    corrupt: Batch,
    readout: Readout,
    stage: str,
    share: float,
    *,
    position: str = "end",
    progress: Progress = silent,
) -> Tensor:
    """The fall of the readout when a head's corrupt output reaches the receivers of a stage alone: [item layer head].

    stage: `logits`; `queries` of the heads that matter most to the logits, at `position`; `values`, at all positions,
    of the heads that matter most to those queries. `share`: of all heads, how many are receivers of the next stage.
    Larger = the head helps. Exactly 0 where no receiver comes later. Unit: the readout's.
    Source: METHODS 5b, 5c (stage by stage); Merullo et al. 2023.
    Raises: BadInput for an unknown stage or a share out of 0 .. 1; NotApplicable where no head matters to a stage;
    else as `path_patch`.
    """
    wanted = STAGES.index(one_of("stage", stage, STAGES))
    number_between("share", share, 0.0, 1.0)
    heads: list[Head] = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    unchanged = ablate_head_sets(lm, clean, readout, [()])
    receivers: Receivers = "logits"
    found = torch.empty(0)
    for each in range(wanted + 1):
        if each > 0:
            part: Literal["q", "v"] = "q" if each == 1 else "v"
            chosen = heads_in(top_heads(found, share))
            if not chosen:
                raise NotApplicable(f"{lm.name}: no head matters to the {STAGES[each - 1]}, so nothing leads there")
            receivers = [(layer, head, part) for layer, head in chosen]
        where = None if STAGES[each] == "values" else position
        patched = path_patch(lm, clean, corrupt, readout, heads, receivers, positions=where)
        found = (unchanged - patched).reshape(-1, lm.n_layers, lm.n_heads)
        progress(each + 1, wanted + 1)
    return found.cpu()


def top_heads(effects: Tensor, share: float) -> Tensor:
    """The heads of largest absolute mean effect [item layer head], `share` of all, one at least: [layer head] bool.

    Heads without any effect never count; ties by layer and head. Source: METHODS 5c (top 2 % of each stage)
    """
    mean = effects.double().nanmean(dim=0).nan_to_num(0.0).abs()
    n_top = max(1, math.floor(share * mean.numel() + 0.5))
    order = torch.argsort(-mean.flatten(), stable=True)[:n_top]
    chosen = torch.zeros(mean.numel(), dtype=torch.bool)
    chosen[order] = True
    return chosen.reshape(mean.shape) & (mean > 0)


def heads_in(chosen: Tensor) -> list[Head]:
    """The heads of a mask [layer head]."""
    return [(layer, head) for layer, head in torch.nonzero(chosen).tolist()]
