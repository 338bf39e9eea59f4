"""Where in a list a model remembers: the surprisal of each noun, read for the first and for the second time."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.curve import Curve
from mneme.list_surprisal import LISTS, mean_bits, noun_bits, noun_places, percent_of_first
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.tracing import trace_sites


@probe(
    level="curve",
    unit="percent of the first surprisal",
    low=0.0,
    high=None,
    curves={
        "repeat_surprisal_by_position": ("list_position", "percent of the first surprisal", 0.0, None),
        "first_surprisal": ("list_position", "bits", 0.0, None),
        "second_surprisal": ("list_position", "bits", 0.0, None),
    },
    source="Armeni, Honey, Linzen 2022; METHODS 9",
)
def repeat_surprisal_by_position(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  nothing is drawn
    progress: Progress = silent,
) -> dict[str, Curve]:
    """Surprisal of the nouns of list 2 at each place j of the list, in percent of that of list 1.

    x:      list_position, 0 for the first noun of a list
    Shape:  [item noun], NaN beyond the end of a list. `first_surprisal` and `second_surprisal` are the surprisals of
            the nouns of list 1 and list 2; `repeat_surprisal_by_position` is the second over the mean of the first at
            the places 1, 2, ..., so that its mean over these places is the item's `repeat_surprisal`. Place 0 is the
            cue curve, which nothing but the text before the list foretells: it is taken over list 1's own place 0
    Unit:   bits, and percent of the first surprisal
    Range:  0 .. ; 100 where list 1 did not help. NaN where what it is taken over is less than one bit
    Raises: NotApplicable without the labels list1_0, list2_0, ... (`verbatim_list` with `ends: full`, `noun_list_grid`)
    Source: METHODS 9 (curves by position, the cue curve)
    """
    places = [noun_places(prompts, name, "repeat_surprisal_by_position") for name in LISTS]
    log_prob = trace_sites(lm, prompts, ["token_scores"], progress)["token_scores"]["log_prob"]
    first, second = (noun_bits(log_prob, each) for each in places)
    x = torch.arange(first.shape[1], dtype=torch.float64)
    return {
        "repeat_surprisal_by_position": Curve(x, _share(first, second)),
        "first_surprisal": Curve(x, first),
        "second_surprisal": Curve(x, second),
    }


def _share(first: Tensor, second: Tensor) -> Tensor:
    """[item noun], percent."""
    whole = torch.cat([first[:, :1], mean_bits(first)[:, None].expand(-1, first.shape[1] - 1)], dim=1)
    return percent_of_first(second, whole)
