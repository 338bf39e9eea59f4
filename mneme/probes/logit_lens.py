"""What the model would answer from the residual stream of each layer."""

from __future__ import annotations

import numpy as np
import torch

from mneme.arguments import one_of
from mneme.curve import Curve
from mneme.errors import NotApplicable
from mneme.lenses import logit_lens as seen_through_the_lens
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="rank",
    low=1.0,
    high=None,
    curves={
        "answer_rank": ("layer", "rank", 1.0, None),
        "answer_probability": ("layer", "probability", 0.0, 1.0),
        "kl_to_final": ("layer", "nats", 0.0, None),
        "argmax_agreement": ("layer", "fraction of prompts", 0.0, 1.0),
    },
    source="nostalgebraist 2020; Belrose et al. 2023; METHODS 8a",
)
def logit_lens(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    order: str = "own",
) -> dict[str, Curve]:
    """The final norm and the unembedding applied to what enters each layer, at the last token of each prompt.

    x: layer: l is what enters layer l, n_layers what leaves the last one, the model's own prediction
    answer_rank: of the likeliest correct answer among all tokens, 1 = best; equally likely tokens count as better
    answer_probability: of all correct answers together
    kl_to_final: nats, KL(the model's prediction || that of the layer)
    argmax_agreement: 1 where the likeliest token is the model's own, a tie is no credit
    order: `own`, or `shuffled`, a control: what the layers add is added up in an order drawn for each prompt, so that
           only the first and the last point are the model's own
    Early layers, of rotary models above all, are near noise: read the curve beside the control and an untrained model.
    Departs from METHODS 8a: no tuned lens, which is trained and may add what the layer does not hold.
    Raises: NotApplicable without correct answers, or where the layers or the final norm are not found.
    Source: METHODS 8a
    """
    if prompts.correct_ids is None:
        raise NotApplicable("logit_lens needs prompts with correct answers, and this promptset has none")
    orders = None
    if one_of("logit_lens.order", order, ("own", "shuffled")) == "shuffled":
        drawn = np.random.default_rng(probe_seed).permuted(np.tile(np.arange(lm.n_layers), (len(prompts), 1)), axis=1)
        orders = torch.from_numpy(drawn)
    seen = seen_through_the_lens(lm, prompts.clean, prompts.correct_ids, progress, order=orders)
    layers = torch.arange(lm.n_layers + 1, dtype=torch.float64)
    values = {
        "answer_rank": seen.rank + 1.0,
        "answer_probability": seen.log_prob.exp(),
        "kl_to_final": seen.kl,
        "argmax_agreement": seen.agrees.float(),
    }
    return {measure: Curve(layers, each.cpu()) for measure, each in values.items()}
