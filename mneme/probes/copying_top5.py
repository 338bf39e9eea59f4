"""Whether a head raises what it attends to among the five tokens that it raises most."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import whole_number
from mneme.copying import own_rows, scores_of_circuits, tokens_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent


@probe(
    level="head",
    unit="fraction of tokens",
    low=0.0,
    high=1.0,
    reads="weights",
    source="Wang et al. 2022; METHODS 1b",
)
def copying_top5(
    lm: LanguageModel,
    *,
    probe_seed: int,
    progress: Progress = silent,
    embedding: str = "plain",
    control: str = "none",
    n_tokens: int = 512,
) -> Tensor:
    """Share of tokens that are among the five whose logits a head raises most when it attends to them.

    Shape:  [layer head]; no prompt is read
    Unit:   fraction of tokens; a token that shares its logit with others stands behind them
    Range:  0 .. 1; NaN where the head moves no logit
    embedding: `plain`, or `effective` with what the first MLP adds to each embedding
    control: `none`; `random_pairs` asks for a random other token's logit in place of the token's own; `random_weights`
            gives each head random directions and its own singular values
    n_tokens: tokens that are asked for, drawn from the whole vocabulary by the probe's seed
    Raises: NotApplicable where the circuit has no fixed weights (norms after attention, values that are not linear)
    Source: METHODS 1b (top5_copy; name movers of GPT-2 small are above 0.95)
    """
    tokens = tokens_of(lm.vocab_size, whole_number("copying_top5.n_tokens", n_tokens, 1), probe_seed)
    return scores_of_circuits(
        lm,
        lambda circuit: own_rows(circuit, tokens).top5.nanmean(),
        embedding=embedding,
        control=control,
        seed=probe_seed,
        progress=progress,
    )
