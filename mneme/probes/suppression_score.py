"""How often a head, attending to a token, lowers that token's own logit more than almost all others."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import whole_number
from mneme.copying import scores_of_circuits, tokens_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.suppression import lowered


@probe(
    level="head",
    unit="fraction of tokens",
    low=0.0,
    high=1.0,
    reads="weights",
    source="McDougall et al. 2023; METHODS 8b",
)
def suppression_score(  # noqa: PLR0913  a probe's keywords are what its YAML may set
    lm: LanguageModel,
    *,
    probe_seed: int,
    progress: Progress = silent,
    embedding: str = "plain",
    control: str = "none",
    n_lowest: int = 10,
    n_tokens: int = 512,
) -> Tensor:
    """Share of tokens whose own logit is among the 10 that a head lowers most when it attends to them.

    Shape:  [layer head]; no prompt is read
    Unit:   fraction of tokens; a token that shares its logit with others stands behind them
    Range:  0 .. 1; chance is n_lowest over the size of the vocabulary; NaN where the head moves no logit
    embedding: `plain`, or `effective` with what the first MLP adds to each embedding
    control: `none`; `random_pairs` asks for a random other token's logit in place of the token's own; `random_weights`
            gives each head random directions and its own singular values
    n_lowest: how many logits count as lowered; n_tokens: tokens that are asked for, drawn from the whole vocabulary by
            the probe's seed
    Raises: NotApplicable where the circuit has no fixed weights (norms after attention, values that are not linear)
    Source: METHODS 8b (weight score, OV side)
    """
    n_lowest = whole_number("suppression_score.n_lowest", n_lowest, 1)
    tokens = tokens_of(lm.vocab_size, whole_number("suppression_score.n_tokens", n_tokens, 1), probe_seed)
    return scores_of_circuits(
        lm,
        lambda circuit: lowered(circuit, tokens, n_lowest).nanmean(),
        embedding=embedding,
        control=control,
        seed=probe_seed,
        progress=progress,
    )
