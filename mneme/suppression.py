"""Copy suppression in the weights: whether a head lowers the token it attends to, and attends to what is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.copying import EMBEDDINGS, SMALLEST
from mneme.head_circuits import HeadCircuit, call_of_states, token_space
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.unembedding import row_chunks, widened

CONTROLS = ("none", "random_pairs")
_LENGTH = 10.0  # of a direction that enters a layer, in units of sqrt(d_model): drowns the norm's epsilon


def lowered(circuit: HeadCircuit, tokens: Tensor, n_lowest: int) -> Tensor:
    """Whether each token is among the `n_lowest` whose logits a head, attending to it, lowers most: [token] 0 or 1.

    Shape: tokens [token] int64. A token that shares its logit with others stands behind them; NaN where the head moves
    no logit. Source: METHODS 8b; McDougall et al. 2023.
    """
    parts = []
    for some in row_chunks(len(tokens), len(circuit.space.unembed)):
        raised = written_logits(circuit, tokens[some])
        own = raised.gather(1, tokens[some, None].to(raised.device))
        found = ((raised <= own).sum(dim=1) <= n_lowest).double()
        parts.append(torch.where(raised.std(dim=1, correction=0) >= SMALLEST, found, torch.nan))
    return torch.cat(parts)


def written_logits(circuit: HeadCircuit, tokens: Tensor) -> Tensor:
    """What a head adds to every logit when it attends to a token, up to one factor: [token vocab] float64."""
    states = circuit.space.embedding[tokens.to(circuit.values.device)]
    return states @ circuit.values @ (circuit.writes @ circuit.space.unembed.T)


@torch.no_grad()
def query_ranks(
    lm: LanguageModel,
    tokens: Tensor,
    *,
    embedding: str = "effective",
    control: str = "none",
    seed: int = 0,
    progress: Progress = silent,
) -> Tensor:
    """Rank of each token among all keys where the query is its own unembedding direction: [layer head token] float64.

    1 = no other key is attended to more; keys that score alike stand before it. NaN where all keys score alike. Query
    and keys are read off the running layer, both at position 0, biases included. embedding: of the keys, `plain` E or
    `effective` E + MLP0(E). control: `random_pairs` gives each token a random other one's unembedding as query.
    Source: METHODS 8b; McDougall et al. 2023. Raises: BadInput for other words; NotApplicable as `token_space`.
    """
    one_of("embedding", embedding, EMBEDDINGS)
    one_of("control", control, CONTROLS)
    space = token_space(lm, "effective" if embedding == "effective" else "plain")
    if control == "random_pairs":
        space = space.with_other_targets(seed)
    tokens = tokens.to(space.unembed.device)
    direction = space.unembed[tokens]
    direction = direction * (_LENGTH * lm.d_model**0.5 / direction.norm(dim=1, keepdim=True).clamp_min(SMALLEST))
    found = []
    for layer in range(lm.n_layers):
        asking, offering = (each.to(lm.device, lm.dtype) for each in (direction, space.embedding))
        queries = widened(call_of_states(lm, layer, asking).query[:, :, 0])
        keys = widened(call_of_states(lm, layer, offering).key[:, :, 0])
        n_shared = queries.shape[1] // keys.shape[1]
        heads = range(queries.shape[1])
        found.append(torch.stack([_ranks(queries[:, head], keys[:, head // n_shared], tokens) for head in heads]))
        progress(layer + 1, lm.n_layers)
    return torch.stack(found).cpu()


def _ranks(queries: Tensor, keys: Tensor, tokens: Tensor) -> Tensor:
    """Ranks [token] of the tokens' own keys [vocab width] for their queries [token width]."""
    parts = []
    for some in row_chunks(len(tokens), len(keys)):
        scores = queries[some].double() @ keys.double().T
        own = scores.gather(1, tokens[some, None].to(scores.device))
        ranks = (scores >= own).sum(dim=1).double()
        parts.append(torch.where(scores.std(dim=1, correction=0) >= SMALLEST, ranks, torch.nan))
    return torch.cat(parts)
