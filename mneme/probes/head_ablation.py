"""What a model loses without a head, and without the top heads of a probe, against matched random heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mneme.head_harm import HeadTest, harm_of_heads
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="intervention",
    unit="nats",
    low=None,
    high=None,
    ranks_with="rank_by",
    effect_name="{kind}_ablation",
    source="Wang et al. 2022; Zhang and Nanda 2023; METHODS 3, 4",
)
def head_ablation(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    kind: str = "mean",
    rank_by: str = "induction",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    ks: Sequence[int] = (1, 2, 3, 4, 6, 8),
    n_draws: int = 100,
    position: str | None = None,
) -> dict[str, Tensor]:
    """Effect of ablating each head alone, and the top-k heads of another probe together.

    Unit:   nats: readout of the clean run minus readout of the ablated run, larger = more harm. The readout is the
            promptset's primary one (log-probability of what can be copied, or a logit difference)
    kind:   `mean` (each head's output replaced by its mean over the promptset, per position), `zero`, or `uniform`
            (attention the same to all keys that the head may see)
    rank_by: the probe that ranks the heads, `name` or `name[variant]`
    rank_on: another promptset on which it ranks them; all prompts are then tested. Without it heads are ranked on one
            half of the prompts, and the effect of the sets is measured on the other half only
    ks:     sizes of the sets; those larger than the number of ranked heads are left out
    n_draws: random sets per k, with as many heads in each layer and none of the tested ones; fewer where fewer exist
    position: a position label, to ablate there only: `end` is where a one-token answer is decoded; None = everywhere

    Returns, raises: as `harm_of_heads`
    Source: METHODS 3 (delta = m(clean) - m(ablated)), METHODS 4 (split A / split B, per-layer-matched controls)
    """
    test = HeadTest.of("head_ablation", kind, ks, n_draws, probe_seed, position)
    return harm_of_heads(lm, prompts, ranking, test, primary_readout, progress)
