"""How far a token's own logit stands out of what a head writes when it attends to it."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import whole_number
from mneme.copying import own_rows, scores_of_circuits, tokens_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent


@probe(
    level="head",
    unit="standard deviations",
    low=None,
    high=None,
    reads="weights",
    source="Wang et al. 2022; METHODS 1b",
)
def copying_z(
    lm: LanguageModel,
    *,
    probe_seed: int,
    progress: Progress = silent,
    embedding: str = "plain",
    control: str = "none",
    n_tokens: int = 512,
) -> Tensor:
    """Standard deviations by which a token's own logit stands above all when a head attends to it, mean over tokens.

    Shape:  [layer head]; no prompt is read
    Unit:   standard deviations of the logits that the head writes
    Range:  unbounded; 0 = like any other token, negative = lowered; NaN where the head moves no logit
    embedding: `plain`, or `effective` with what the first MLP adds to each embedding
    control: `none`; `random_pairs` asks for a random other token's logit in place of the token's own; `random_weights`
            gives each head random directions and its own singular values
    n_tokens: tokens that are asked for, drawn from the whole vocabulary by the probe's seed
    Raises: NotApplicable where the circuit has no fixed weights (norms after attention, values that are not linear)
    Source: METHODS 1b (z_copy)
    """
    tokens = tokens_of(lm.vocab_size, whole_number("copying_z.n_tokens", n_tokens, 1), probe_seed)
    return scores_of_circuits(
        lm,
        lambda circuit: own_rows(circuit, tokens).z.nanmean(),
        embedding=embedding,
        control=control,
        seed=probe_seed,
        progress=progress,
    )
