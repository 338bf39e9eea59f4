"""What the rest of a text loses when its function tokens, or as many content tokens, say nothing of themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches, items_per_group
from mneme.capturing import capture
from mneme.curve import Curve
from mneme.function_tokens import is_function_token, is_text, matched
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import STORED, by_layer
from mneme.restart import Restart, restart
from mneme.scoring import scores_of_hidden


@probe(
    level="curve",
    unit="nats",
    low=None,
    high=None,
    curves={
        "loss_without_function": ("layer", "nats", None, None),
        "loss_without_content": ("layer", "nats", None, None),
    },
    min_tokens=2,
    source="Memory Retrieval and Consolidation in LLMs through Function Tokens, 2025; METHODS 19g",
)
def function_token_ablation(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    coverage: float = 0.4,
) -> dict[str, Curve]:
    """Rise of the loss when the residual stream of one class of tokens is set to the mean of all tokens at a layer.

    The loss is that of the next tokens which the untouched tokens of the text predict: what a changed token itself
    predicts does not count. As many tokens of each class are changed; of the larger class they are drawn at random.
    x:      layer l, at whose input the stream is changed
    Unit:   nats a token; loss of the changed run minus loss of the model
    Range:  unbounded; NaN = the prompt has no token of one class, or none that is left untouched
    Raises: BadInput for a coverage outside 0 .. 1; NotApplicable for a corpus under 100,000 tokens (see
            `function_token_loss`) and where the layers are not found.
    Source: METHODS 19g (ablating the residual at function tokens against count-matched content tokens)
    """
    is_function, inside = is_function_token(prompts, coverage), is_text(prompts)
    drawn = torch.rand(inside.shape, generator=torch.Generator().manual_seed(probe_seed))
    classes = matched(is_function, inside & ~is_function, drawn)
    batch = lm.batch(prompts.clean)
    n_tokens = batch.ids.shape[1]
    at_most = items_per_group(lm, n_tokens, STORED)
    means = _means(lm, batch, inside, at_most)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        places = [each[items, : part.ids.shape[1]].to(part.ids.device) for each in (inside, *classes)]
        untouched = places[0] & ~places[1] & ~places[2]
        states = capture(lm, part, ["residual"])["residual"]
        found = torch.full((len(part), 2, lm.n_layers), torch.nan)
        for layer in range(lm.n_layers):
            clean = _loss(lm, part, layer, states[:, layer], untouched)
            for place, chosen in enumerate(places[1:]):
                changed = torch.where(chosen[..., None], means[layer].to(states), states[:, layer])
                found[:, place, layer] = (_loss(lm, part, layer, changed, untouched) - clean).cpu()
        return found

    found = in_batches(lm, len(batch), n_tokens, run, progress, at_most=at_most)
    is_missing = ~classes[0].any(dim=1)
    found = found.masked_fill(is_missing[:, None, None], torch.nan)
    return {"loss_without_function": by_layer(found[:, 0]), "loss_without_content": by_layer(found[:, 1])}


def _means(lm: LanguageModel, batch: Batch, inside: Tensor, at_most: int) -> Tensor:
    """Mean stream of the text's tokens at the input of each layer: [layer d_model] float64."""

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        states = capture(lm, part, ["residual"])["residual"].double()
        chosen = inside[items, : part.ids.shape[1]].to(states.device)
        return (states * chosen[:, None, :, None]).sum(dim=2)

    total = in_batches(lm, len(batch), batch.ids.shape[1], run, at_most=at_most).sum(dim=0)
    return total / inside.sum()


@torch.no_grad()
def _loss(lm: LanguageModel, part: Batch, layer: int, states: Tensor, counted: Tensor) -> Tensor:
    """Mean loss of the next tokens of the counted positions [item], from what enters a layer."""
    log_prob, _ = scores_of_hidden(lm, restart(lm, Restart(layer, part.ids, states)), part)
    return -log_prob.masked_fill(~counted, torch.nan).nanmean(dim=1)
