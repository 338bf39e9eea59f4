"""How many right answers a model loses without a head, and without the top heads of a probe, against random heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mneme.accuracy_readouts import answer_accuracy_readout, copy_accuracy_readout
from mneme.arguments import one_of
from mneme.head_harm import HeadTest, harm_of_heads
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout

OUTCOMES = {"answer_accuracy": answer_accuracy_readout, "copy_accuracy": copy_accuracy_readout}


@probe(
    level="intervention",
    unit="fraction of right answers",
    low=-1.0,
    high=1.0,
    ranks_with="rank_by",
    effect_name="{kind}_ablation",
    source="Wu et al. 2024; METHODS 2a, 3, 4",
)
def head_ablation_accuracy(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    outcome: str = "answer_accuracy",
    kind: str = "mean",
    rank_by: str = "induction",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    ks: Sequence[int] = (1, 2, 4, 8),
    n_draws: int = 100,
    position: str | None = None,
) -> dict[str, Tensor]:
    """Accuracy lost by ablating each head alone, and the top-k heads of another probe together.

    Unit:   fraction of right answers: accuracy of the clean run minus that of the ablated run, larger = more harm
    Range:  -1 .. 1
    outcome: `answer_accuracy` (the best correct answer beats the best wrong one), or `copy_accuracy` (the tokens of
            copy 2 that are the first choice); a tie is no credit
    kind, rank_by, rank_on, ks, n_draws, position: as in `head_ablation`, which measures the same in nats

    Returns, raises: as `harm_of_heads`; NotApplicable too for prompts without answers, or without a known period
    Source: METHODS 2a (masking K heads beside random ones), METHODS 3, 4
    """
    read = OUTCOMES[one_of("head_ablation_accuracy.outcome", outcome, tuple(OUTCOMES))]

    def readout_of(some: Promptset) -> Readout:
        return read(some, f"head_ablation_accuracy with outcome {outcome}")

    test = HeadTest.of("head_ablation_accuracy", kind, ks, n_draws, probe_seed, position)
    return harm_of_heads(lm, prompts, ranking, test, readout_of, progress)
