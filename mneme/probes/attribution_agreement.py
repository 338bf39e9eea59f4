"""Whether two accounts of which tokens matter put them in the same order."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.token_importance import METHODS, token_importance

_FEWEST_COMPARED = 7  # of eight tokens all but the one that asks


@probe(
    level="behavior",
    unit="rank correlation",
    low=-1.0,
    high=1.0,
    group="median",
    min_tokens=8,
    source="Neely et al. 2022; Jain and Wallace 2019; METHODS 19h",
)
def attribution_agreement(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    first: str = "attention",
    second: str = "integrated_gradients",
    n_skipped: int = 0,
    permuted: int | None = None,
) -> Tensor:
    """Kendall's tau-b between the importances of a prompt's tokens by two methods.

    Shape:  [item]; their median is the result, their mean stands beside it
    Unit:   rank correlation
    Range:  -1 .. 1; NaN where one of the two is the same for all tokens, or integrated gradients miss 2 %
    first, second: `attention`, `attention_max` (from the last token, over all heads), `rollout`, `gradient_x_input`,
            `integrated_gradients`, `leave_one_out`; all but attention are taken by their size, whatever their sign
    n_skipped: tokens at the start that are left out: 1 leaves out the token where attention rests. The last token,
            which asks, always is
    permuted: a seed: a control, the second importances dealt out anew within each prompt, so that tau is near 0
    Agreement is no proof of truth: `deletion_curve` asks what the model loses.
    Raises: BadInput for an unknown method or one compared with itself; NotApplicable without answers, for prompts under
            8 tokens
    Source: METHODS 19h
    """
    place = "attribution_agreement"
    pair = [one_of(f"{place}.{name}", each, tuple(METHODS)) for name, each in (("first", first), ("second", second))]
    if first == second:
        raise BadInput(f"{place}.second is '{second}' as is {place}.first: compare two methods")
    n_skipped = whole_number(f"{place}.n_skipped", n_skipped, 0)
    rng = None if permuted is None else np.random.default_rng(whole_number(f"{place}.permuted", permuted, 0))
    one, other = (token_importance(lm, prompts, each, progress).abs().numpy() for each in pair)
    found = []
    for item, length in enumerate(prompts.clean.lengths.tolist()):
        compared = slice(n_skipped, length - 1)
        right = other[item, compared]
        found.append(_tau(one[item, compared], right if rng is None else rng.permutation(right)))
    return torch.tensor(found, dtype=torch.float32)


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    """Tau-b; NaN for too few tokens, missing importances and those that are all the same."""
    if len(one) < _FEWEST_COMPARED or np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.kendalltau(one, other, variant="b").statistic)
