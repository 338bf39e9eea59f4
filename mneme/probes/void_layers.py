"""Layers that hardly change a token's norm, while a prompt is read and while an answer is generated."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.batch import Batch
from mneme.capturing import Trace
from mneme.curve import Curve
from mneme.greedy import decode_greedily
from mneme.layer_skipping import check_depth, norm_changes, relative_changes, turns, void_layers_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import by_layer, over_prompts

_MEASURES = ("void", "relative_change", "block_influence")


@probe(
    level="curve",
    unit="share of tokens",
    low=0.0,
    high=1.0,
    curves={
        "void_in_prompt": ("layer", "share of tokens", 0.0, 1.0),
        "relative_change_in_prompt": ("layer", "ratio of norms", 0.0, None),
        "block_influence_in_prompt": ("layer", "1 - cosine", 0.0, 2.0),
        "void_in_response": ("layer", "share of tokens", 0.0, 1.0),
        "relative_change_in_response": ("layer", "ratio of norms", 0.0, None),
        "block_influence_in_response": ("layer", "1 - cosine", 0.0, 2.0),
    },
    min_tokens=2,
    source="Shemiranifar 2025; METHODS 19f",
)
def void_layers(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  all curves are given one
    progress: Progress = silent,
    alpha: float = 0.8,
    n_response: int = 8,
) -> dict[str, Curve]:
    """Share of tokens for which each layer is void, and how much the layer changes their residual stream.

    Layer l is void for a token where | ||h_(l+1)|| - ||h_l|| | is below alpha times the spread (largest - smallest) of
    these changes over the layers 0 .. l.
    x:      layer
    void_...: share of tokens; relative_change_...: ||h_(l+1) - h_l|| / ||h_l||, mean over tokens, which sees a rotation
            that leaves the norm alone; block_influence_...: 1 - cos(h_l, h_(l+1)), mean over tokens
    ..._in_prompt: the tokens of the prompt, the first token in front left out; ..._in_response: `n_response` tokens
            that the model generates greedily after it, fewer where the context ends; NaN where there is none
    Range:  shares 0 .. 1; the first layer is never void
    Raises: BadInput for an alpha outside (0, 1]; NotApplicable for models of fewer than 4 layers, prompts of one token
            and models that cannot be decoded step by step.
    Source: METHODS 19f (per-token definition, threshold over the deltas up to and including l)
    """
    check_depth(lm, "void_layers")
    void_layers_of(torch.zeros(1, 2), alpha)
    n_response = whole_number("void_layers.n_response", n_response, 0)
    batch = lm.batch(prompts.clean)
    both = _continued(lm, batch, n_response) if n_response else batch
    offset = int(prompts.facts.get("offset", 0))
    labelled = replace(both, labels={"begins": batch.lengths - 1})

    def measure(trace: Trace, part: Batch) -> Tensor:
        states = trace["residual"]
        changes = norm_changes(states)
        found = [void_layers_of(changes, alpha).float(), relative_changes(states), turns(states)]
        here = torch.arange(part.ids.shape[1], device=part.ids.device)
        after = here > part.labels["begins"][:, None]
        phases = (~after & (here >= offset), after & part.padding.bool())
        return torch.stack([_mean(each, phase) for phase in phases for each in found], dim=1)

    found = over_prompts(lm, replace(prompts, clean=labelled, corrupt=None), ["residual"], measure, progress)
    names = [f"{measure}_in_{phase}" for phase in ("prompt", "response") for measure in _MEASURES]
    return {name: by_layer(found[:, place]) for place, name in enumerate(names)}


def _continued(lm: LanguageModel, batch: Batch, n_response: int) -> Batch:
    """Each prompt with what the model says next, as far as the context goes."""
    said = decode_greedily(lm, batch, n_response, lambda _: False)
    n_said = (said >= 0).sum(dim=1)
    lengths = batch.lengths + n_said
    if lm.context is not None:
        lengths = lengths.clamp(max=lm.context)
    ids = torch.nn.functional.pad(batch.ids, (0, int(lengths.max()) - batch.ids.shape[1]))
    for step in range(n_response):
        items = torch.nonzero(batch.lengths + step < lengths)[:, 0]
        ids[items, batch.lengths[items] + step] = said[items, step]
    return Batch(ids, lengths)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen tokens: values [item position layer], chosen [item position] -> [item layer]."""
    return values.float().masked_fill(~chosen[..., None], torch.nan).nanmean(dim=1)
