"""Heads that rest on the first token and are of no use to a text: dormant there, and active elsewhere perhaps."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import number_between, one_of
from mneme.head_losses import first_token_attention, loss_changes
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.residuals import require_first_token

CONTROLS = ("none", "other_heads")


@probe(
    level="head",
    unit="share of prompts",
    low=0.0,
    high=1.0,
    min_tokens=16,
    one_length=True,
    source="Guo et al. 2024; METHODS 18",
)
def active_dormant(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    least_attention: float = 0.9,
    most_loss: float = 0.01,
    control: str = "none",
) -> Tensor:
    """Whether a head is dormant on a prompt: it rests on the first token, and without it the loss stays as it is.

    Shape:  [item layer head]; 1 where alpha_0 > `least_attention` and zeroing the head changes the loss by less than
            `most_loss` nats a token, up or down, else 0
    Unit:   the mean over prompts is the share of prompts on which the head is dormant
    Range:  0 .. 1
    control: `none`; `other_heads` zeroes, where this head rests, each other head of its layer in its place, one at a
            time: the share of them without which the loss stays as it is, NaN in a layer of one head. Resting says
            that a head is of no use only where its own share is the larger one
    A domain is a promptset, or the value of the condition `domain` of one. Domains can be compared only where prompts
    have one length and begin alike, since alpha_0 depends on both.
    Raises: BadInput for thresholds that are no numbers or another control; NotApplicable for prompts under 16 tokens,
            of several lengths or without a token in front, and for models outside the attention interface.
    Source: METHODS 18 (alpha_0 > .9 and a loss change below eps; random heads of the layer, of which all are taken);
            differs from it in: the rule is asked prompt by prompt; the rule on means is `first_token_sink` beside
            `head_loss_change`
    """
    least = number_between("active_dormant.least_attention", least_attention, 0, 1)
    most = number_between("active_dormant.most_loss", most_loss, 0, torch.inf)
    control = one_of("active_dormant.control", control, CONTROLS)
    require_first_token(prompts, "active_dormant")
    attention = first_token_attention(lm, prompts.clean)
    changes = loss_changes(lm, prompts.clean, "zero", progress)
    keeps_loss = (changes.abs() < most).float()
    if control == "other_heads":
        keeps_loss = _of_others(keeps_loss)
    return (attention > least).float() * keeps_loss


def _of_others(values: Tensor) -> Tensor:
    """The mean over the other heads of a head's layer: [item layer head], NaN where there are none."""
    n_heads = values.shape[2]
    if n_heads == 1:
        return torch.full_like(values, torch.nan)
    return (values.sum(dim=2, keepdim=True) - values) / (n_heads - 1)
