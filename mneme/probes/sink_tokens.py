"""Tokens that become sinks beside the first one: where they begin, how long they last, what attention they get."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.arguments import number_between
from mneme.batch import Batch
from mneme.capturing import SiteName, Trace, require_structure
from mneme.curve import Curve
from mneme.key_importance import key_importance
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import by_layer, over_prompts, require_first_token
from mneme.secondary_sinks import classes, follows, starts_and_lifetimes


@probe(
    level="curve",
    unit="tokens per prompt",
    low=0.0,
    high=None,
    curves={
        "sink_tokens": ("layer", "tokens per prompt", 0.0, None),
        "primary_like": ("layer", "tokens per prompt", 0.0, None),
        "secondary": ("layer", "tokens per prompt", 0.0, None),
        "noise": ("layer", "tokens per prompt", 0.0, None),
        "control_tokens": ("layer", "tokens per prompt", 0.0, None),
        "sinks_started": ("layer", "tokens per prompt", 0.0, None),
        "sinks_by_lifetime": ("lifetime", "tokens per prompt", 0.0, None),
        "sink_token_attention": ("layer", "fraction of attention", 0.0, 1.0),
        "mlp_norm_at_start": ("layer", "norm", 0.0, None),
    },
    min_tokens=16,
    one_length=True,
    source="Wong et al. 2025; METHODS 1d",
)
def sink_tokens(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  all curves are given one
    progress: Progress = silent,
    threshold: float = 0.9,
    primary: float = 0.625,
    noise: float = 0.1,
) -> dict[str, Curve]:
    """Secondary sinks: tokens t with |cos(h_l[t], h_l[first])| above `threshold`, the first token left out.

    They count inside the span between the largest rise and the largest later fall of the first token's norm only.
    x:      layer l = what enters layer l, the last point what leaves the model; of `sinks_by_lifetime`: how many
            layers a token lasts, 1 .. n_layers + 1
    sink_tokens: how many at that layer; primary_like, secondary, noise: those of them that last at least `primary`,
            in between, and at most `noise` of the model's layers
    control_tokens: tokens that point in the same way where the middle token of the prompt takes the first one's place
    sinks_started: those whose first layer it is; with `sinks_by_lifetime`, the levels of sinks
    sink_token_attention: alpha, the mean of the token's column over the rows that see it, mean over tokens and heads
    mlp_norm_at_start: norm of what the MLP of the layer before wrote into the tokens that start there
    Unit:   tokens per prompt, fraction of attention, norm. NaN = no such token in that prompt
    Raises: NotApplicable for prompts under 16 tokens, of several lengths, or without a token in front.
    Source: METHODS 1d; differs from it in: classes are shares of the layers (15 and 4 of about 40), not numbers
    """
    require_first_token(prompts, "sink_tokens")
    rules = {
        "threshold": number_between("sink_tokens.threshold", threshold, 0, 1),
        "primary": number_between("sink_tokens.primary", primary, 0, 1.0001),
        "noise": number_between("sink_tokens.noise", noise, 0, 1),
    }
    has_mlps = all(part.mlp_write is not None for part in require_structure(lm).parts)
    sites: Sequence[SiteName] = ["residual", "attention_inputs", *(["mlp_out"] * has_mlps)]  # type: ignore[list-item]
    found = over_prompts(lm, prompts, sites, lambda trace, part: _measured(lm, trace, part, rules), progress)
    names = ("sink_tokens", "primary_like", "secondary", "noise", "control_tokens", "sinks_started")
    curves = {name: by_layer(found[:, place]) for place, name in enumerate(names)}
    lifetimes = torch.arange(1, lm.n_layers + 2, dtype=torch.float64)
    curves["sinks_by_lifetime"] = Curve(lifetimes, found[:, len(names)])
    curves["sink_token_attention"] = by_layer(found[:, len(names) + 1, :-1])
    curves["mlp_norm_at_start"] = by_layer(found[:, len(names) + 2])
    return curves


def _measured(lm: LanguageModel, trace: Trace, part: Batch, rules: dict[str, float]) -> Tensor:
    """The curves of some prompts, in the order in which they are delivered: [item curve point]."""
    states, padding = trace["residual"], part.padding
    first = torch.zeros_like(part.lengths)
    found = follows(states, first, padding, rules["threshold"])
    control = follows(states, torch.div(part.lengths, 2, rounding_mode="floor"), padding, rules["threshold"])
    start, lifetime = starts_and_lifetimes(found)
    points = torch.arange(lm.n_layers + 1, device=start.device)
    starting = start[:, None, :] == points[:, None]
    sets = [
        found,
        *(
            found & chosen[:, None]
            for chosen in classes(lifetime, lm.n_layers, rules["primary"], rules["noise"]).values()
        ),
        control,
        starting,
        lifetime[:, None, :] == points[:, None] + 1,
    ]
    counts = [each.sum(dim=2).float() for each in sets]
    return torch.stack([*counts, _attention(trace, found), _mlp_norms(trace, starting)], dim=1)


def _attention(trace: Trace, found: Tensor) -> Tensor:
    """Mean alpha of the sinks of each layer: [item layer], NaN without one and at the last point."""
    values = torch.full(found.shape[:2], torch.nan, device=found.device)
    for layer, inputs in trace.attention_inputs.items():
        alpha = key_importance(inputs).mean(dim=1)
        values[:, layer] = alpha.masked_fill(~found[:, layer], torch.nan).nanmean(dim=1).float()
    return values


def _mlp_norms(trace: Trace, starting: Tensor) -> Tensor:
    """Mean norm of the MLP's write into the tokens that start at a layer: [item layer], NaN without one."""
    values = torch.full(starting.shape[:2], torch.nan, device=starting.device)
    if "mlp_out" in trace.arrays:
        norms = trace["mlp_out"].float().norm(dim=-1)
        values[:, 1:] = norms.masked_fill(~starting[:, 1:], torch.nan).nanmean(dim=2)
    return values
