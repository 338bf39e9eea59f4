"""How much attention rests on each of the first tokens, and where it makes a sink."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import number_between, whole_number
from mneme.attention import AttentionInputs
from mneme.batching import in_batches
from mneme.capturing import stream_attention
from mneme.curve import Curve
from mneme.key_importance import key_importance
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="fraction of attention",
    low=0.0,
    high=1.0,
    curves={
        "key_importance": ("key", "fraction of attention", 0.0, 1.0),
        "sink_share": ("key", "share of heads", 0.0, 1.0),
    },
    min_tokens=16,
    one_length=True,
    source="Gu et al. 2024; METHODS 1c",
)
def sink_by_position(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  all curves are given one
    progress: Progress = silent,
    eps: float = 0.3,
    n_keys: int = 16,
) -> dict[str, Curve]:
    """Importance alpha of each of the first `n_keys` keys, and in how many heads it exceeds `eps`.

    x:      position of the key, 0 = the first token
    key_importance: alpha, the mean of a column over the rows that can see it, mean over layers and heads
    sink_share: Sink_eps, the share of all heads in which alpha is above eps
    Range:  0 .. 1; uniform causal attention over T tokens gives alpha[k] = (H_T - H_k) / (T - k), not 1 / T
    Raises: BadInput for an eps outside 0 .. 1 or no key; NotApplicable for prompts under 16 tokens or of several
            lengths, and for models outside the attention interface.
    Source: METHODS 1c (alpha, Sink_eps at any key)
    """
    eps = number_between("sink_by_position.eps", eps, 0, 1)
    n_keys = min(whole_number("sink_by_position.n_keys", n_keys, 1), prompts.clean.ids.shape[1])
    batch = lm.batch(prompts.clean)
    lm.require_attention()

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        totals = torch.zeros(2, len(part), n_keys, device=part.ids.device)

        def visit(layer: AttentionInputs) -> None:
            alpha = key_importance(layer)[:, :, :n_keys]
            totals[0] += alpha.sum(dim=1)
            totals[1] += (alpha > eps).sum(dim=1)

        stream_attention(lm, part, visit)
        return (totals / (lm.n_layers * lm.n_heads)).transpose(0, 1).cpu()

    found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    keys = torch.arange(n_keys, dtype=torch.float64)
    return {"key_importance": Curve(keys, found[:, 0]), "sink_share": Curve(keys, found[:, 1])}
