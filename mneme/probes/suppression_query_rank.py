"""Whether a head that is about to see a token predicted attends to that token's earlier occurrence, by its weights."""

from __future__ import annotations

from torch import Tensor

from mneme.arguments import whole_number
from mneme.copying import tokens_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.suppression import query_ranks


@probe(
    level="head",
    unit="rank among tokens",
    low=1.0,
    high=None,
    reads="weights",
    source="McDougall et al. 2023; METHODS 8b",
)
def suppression_query_rank(
    lm: LanguageModel,
    *,
    probe_seed: int,
    progress: Progress = silent,
    embedding: str = "effective",
    control: str = "none",
    n_tokens: int = 512,
) -> Tensor:
    """Median rank of a token among all keys when the query is the direction that predicts it.

    The query is the token's unembedding (the final norm's gain folded in, centred over the vocabulary), the keys are
    the embeddings of all tokens; both enter the head's layer through its own norm, at position 0.
    Shape:  [layer head]; no prompt is read
    Unit:   rank among tokens; the median over tokens, keys that score alike standing before a token's own
    Range:  1 (what is predicted is attended to) .. size of the vocabulary; half of it by chance. NaN where all keys
            score alike
    embedding: of the keys, `effective` with what the first MLP adds to each, or `plain`
    control: `none`, or `random_pairs`, which gives each token a random other one's query
    n_tokens: tokens that are asked for, drawn from the whole vocabulary by the probe's seed
    Raises: NotApplicable where embeddings do not enter layer 0 up to one factor, or the final norm is not found
    Source: METHODS 8b (weight score, QK side); biases of queries and keys are part of the layer and stay in
    """
    tokens = tokens_of(lm.vocab_size, whole_number("suppression_query_rank.n_tokens", n_tokens, 1), probe_seed)
    ranks = query_ranks(lm, tokens, embedding=embedding, control=control, seed=probe_seed, progress=progress)
    return ranks.nanmedian(dim=-1).values.float()
