"""Whether a head copies what it attends to, by the eigenvalues of its OV circuit."""

from __future__ import annotations

from torch import Tensor

from mneme.copying import eigenvalue_score, scores_of_circuits
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent


@probe(
    level="head",
    unit="share of eigenvalues",
    low=-1.0,
    high=1.0,
    reads="weights",
    source="Elhage et al. 2021; Olsson et al. 2022; METHODS 1b",
)
def copying_score(
    lm: LanguageModel,
    *,
    probe_seed: int,
    progress: Progress = silent,
    embedding: str = "plain",
    control: str = "none",
) -> Tensor:
    """Eigenvalues of each head's OV circuit in token space: Re(sum) / sum|.|, from the weights alone.

    Shape:  [layer head]; no prompt is read
    Unit:   share of the eigenvalues' size
    Range:  -1 (lowers the logit of what it attends to) .. 1 (raises it); NaN where the eigenvalues vanish
    embedding: `plain`, or `effective` with what the first MLP adds to each embedding
    control: `none`; `random_pairs` asks for a random other token's logit in place of the token's own; `random_weights`
            gives each head random directions and its own singular values
    Raises: NotApplicable where the circuit has no fixed weights (norms after attention, values that are not linear)
    Source: METHODS 1b (eig_copy); the unembedding is centred over the vocabulary
    """
    return scores_of_circuits(
        lm, eigenvalue_score, embedding=embedding, control=control, seed=probe_seed, progress=progress
    )
