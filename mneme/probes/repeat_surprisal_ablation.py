"""How much of a list a model forgets without a head, and without the top heads of a probe, beside random heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.head_harm import HeadTest, harm_of_heads
from mneme.head_order import Ranking
from mneme.list_surprisal import LEAST_BITS, noun_places, predicting_mask
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout, log_probability

WHO = "repeat_surprisal_ablation"


@probe(
    level="intervention",
    unit="percent of the first surprisal",
    low=None,
    high=None,
    ranks_with="rank_by",
    effect_name="{kind}_ablation_of_memory",
    source="Armeni, Honey, Linzen 2022; METHODS 9, 3, 4",
)
def repeat_surprisal_ablation(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    kind: str = "mean",
    rank_by: str = "induction",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    ks: Sequence[int] = (1, 2, 4),
    n_draws: int = 100,
) -> dict[str, Tensor]:
    """`repeat_surprisal` of the ablated run minus that of the clean run, for each head and for the top heads together.

    Both lists are read by the same changed model: a head that list 1 needs as much as list 2 has no effect.
    Unit:   percent of the first surprisal, larger = more is forgotten; NaN for a list whose first reading surprises the
            clean model by less than one bit a noun
    kind:   `mean` (each head's output replaced by its mean over the promptset, per position), `zero`, or `uniform`
            (attention the same to all keys that the head may see)
    rank_by: the probe that ranks the heads, `name` or `name[variant]`
    rank_on: another promptset on which it ranks them; all prompts are then tested. Without it heads are ranked on one
            half of the prompts, and the effect of the sets is measured on the other half only
    ks:     sizes of the sets; those larger than the number of ranked heads are left out
    n_draws: random sets per k, with as many heads in each layer and none of the tested ones; fewer where fewer exist

    Returns: as `harm_of_heads`, clean being the clean run's repeat surprisal.
    Raises: as `harm_of_heads`; NotApplicable without the labels list1_0, list2_0, ... (`verbatim_list` with `ends:
    full`, `noun_list_grid`).
    Source: METHODS 9 (head link), 3 (ablation), 4 (split A / split B, per-layer-matched controls)
    """
    test = HeadTest.of(WHO, kind, ks, n_draws, probe_seed)
    first = harm_of_heads(lm, _first_part(prompts), ranking, test, lambda some: _readout(some, "list1"), progress)
    second = harm_of_heads(lm, prompts, ranking, test, lambda some: _readout(some, "list2"), progress)
    clean = 100 * second["clean"] / first["clean"]
    clean = clean.masked_fill(-first["clean"] < LEAST_BITS * math.log(2), torch.nan)
    changes = {}
    for name in ("effects", "set_effects", "control_effects"):
        whole = [part["clean"].reshape(-1, *[1] * (part[name].ndim - 1)) for part in (first, second)]
        ablated = 100 * (whole[1] - second[name]) / (whole[0] - first[name])
        changes[name] = ablated - clean.reshape(whole[0].shape)
    return second | changes | {"clean": clean}


def _first_part(prompts: Promptset) -> Promptset:
    """The prompts up to the longest first list: what comes later has no bearing on the surprisal of its nouns."""
    places = noun_places(prompts, "list1", WHO)
    end = int(places.max()) + 1
    clean = prompts.clean
    labels = {name: each for name, each in clean.labels.items() if name.startswith("list1_")}
    return Promptset(Batch(clean.ids[:, :end], clean.lengths.clamp(max=end), labels), clusters=prompts.clusters)


def _readout(prompts: Promptset, name: str) -> Readout:
    """Mean log-probability of the nouns of a list but the first."""
    return log_probability(prompts.clean, predicting_mask(prompts, name, WHO))
