"""Copying scores of the OV circuit: whether a head, when it attends to a token, raises that token's own logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mneme.arguments import one_of
from mneme.errors import BadInput
from mneme.head_circuits import Embedding, HeadCircuit, head_circuits, token_space
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.unembedding import row_chunks

SMALLEST = 1e-8  # sum of |eigenvalues|, or spread of logits, below which a score means nothing
TOP = 5
EMBEDDINGS = ("plain", "effective")
CONTROLS = ("none", "random_pairs", "random_weights")


@dataclass(frozen=True)
class CopyingScores:
    """Copying of each head, from the weights alone.

    Shape: eigenvalue [layer head], see `eigenvalue_score`, -1 .. 1; top5 [layer head], share of the tokens that are
    among the 5 that the head raises most when it attends to them, 0 .. 1; z [layer head], by how many standard
    deviations their own logit stands out, mean over the tokens. NaN where a head writes nothing.
    """

    eigenvalue: Tensor
    top5: Tensor
    z: Tensor


def copying_scores(lm: LanguageModel, tokens: Tensor, embedding: Embedding = "plain") -> CopyingScores:
    """Copying scores of all heads, top5 and z on the tokens `tokens` [token] int64.

    Source: METHODS 1b; Elhage et al. 2021; Wang et al. 2022. Raises: as `scores_of_circuits`; BadInput for tokens that
    are not in the vocabulary.
    """
    if tokens.ndim != 1 or not len(tokens) or int(tokens.min()) < 0 or int(tokens.max()) >= lm.vocab_size:
        raise BadInput(f"tokens must be ids [token] in 0..{lm.vocab_size - 1}, the vocabulary of {lm.name}")

    def score(circuit: HeadCircuit) -> Tensor:
        rows = own_rows(circuit, tokens)
        return torch.stack([eigenvalue_score(circuit), rows.top5.nanmean(), rows.z.nanmean()])

    found = scores_of_circuits(lm, score, embedding=embedding)
    return CopyingScores(*found.unbind(dim=-1))


@torch.no_grad()
def scores_of_circuits(
    lm: LanguageModel,
    score: Callable[[HeadCircuit], Tensor],
    *,
    embedding: str = "plain",
    control: str = "none",
    seed: int = 0,
    progress: Progress = silent,
) -> Tensor:
    """A score of every head's OV circuit, float32: [layer head ...].

    embedding: `plain` E, or `effective` E + MLP0(E). control: `random_pairs` asks for a random other token's logit in
    place of the token's own; `random_weights` gives each head random directions with its own singular values.
    Source: METHODS 1b. Raises: BadInput for other words; NotApplicable as `token_space` and `head_circuits`.
    """
    one_of("embedding", embedding, EMBEDDINGS)
    one_of("control", control, CONTROLS)
    space = token_space(lm, "effective" if embedding == "effective" else "plain")
    if control == "random_pairs":
        space = space.with_other_targets(seed)
    generator = torch.Generator().manual_seed(seed)
    found = [
        score(circuit.with_random_weights(generator) if control == "random_weights" else circuit)
        for circuit in head_circuits(lm, space, progress)
    ]
    scores = torch.stack(found).float().cpu()
    return scores.reshape(lm.n_layers, lm.n_heads, *scores.shape[1:])


def eigenvalue_score(circuit: HeadCircuit) -> Tensor:
    """Re(sum) / sum|.| of the eigenvalues of the circuit, a scalar: 1 copies all, -1 lowers what it attends to.

    The eigenvalues are those of the small matrix writes @ W_U E @ values [width width]. NaN where they vanish.
    Source: METHODS 1b; Elhage et al. 2021.
    """
    spectrum = torch.linalg.eigvals(circuit.writes @ circuit.space.across @ circuit.values)
    size = spectrum.abs().sum()
    return torch.where(size >= SMALLEST, spectrum.real.sum() / size, torch.nan)


@dataclass(frozen=True)
class OwnRows:
    """How tokens stand in their own rows: top5 [token] 0 or 1, z [token]; NaN where a row is constant."""

    top5: Tensor
    z: Tensor


def own_rows(circuit: HeadCircuit, tokens: Tensor) -> OwnRows:
    """Whether each token is among the 5 that attending to it raises most, and how far it stands out.

    Shape: tokens [token] int64. A token that shares its logit with others stands behind them. Source: METHODS 1b;
    Wang et al. 2022.
    """
    parts = [_own_rows(circuit, some) for some in _chunks(circuit, tokens.to(circuit.values.device))]
    return OwnRows(torch.cat([part.top5 for part in parts]), torch.cat([part.z for part in parts]))


def _own_rows(circuit: HeadCircuit, tokens: Tensor) -> OwnRows:
    raised = circuit.space.embedding[tokens] @ circuit.values @ (circuit.writes @ circuit.space.unembed.T)
    own = raised.gather(1, tokens[:, None])
    spread = raised.std(dim=1, correction=0)
    is_known = spread >= SMALLEST
    top5 = ((raised >= own).sum(dim=1) <= TOP).double()
    z = (own[:, 0] - raised.mean(dim=1)) / spread
    return OwnRows(torch.where(is_known, top5, torch.nan), torch.where(is_known, z, torch.nan))


def _chunks(circuit: HeadCircuit, tokens: Tensor) -> Iterator[Tensor]:
    return (tokens[some] for some in row_chunks(len(tokens), len(circuit.space.unembed)))


def tokens_of(vocab_size: int, n_tokens: int, seed: int) -> Tensor:
    """`n_tokens` different ids drawn from the vocabulary, all of them where there are not more: [token], in order."""
    drawn = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(seed))[:n_tokens]
    return drawn.sort().values
