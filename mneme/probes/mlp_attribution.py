"""What the attention and the MLP of each layer do for the answer: what they write, and what is lost without them."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.attribution import direct_logit_attribution
from mneme.batching import in_batches
from mneme.curve import Curve
from mneme.errors import NotApplicable
from mneme.fact_conflicts import as_conflict, known_items
from mneme.layer_ablation import mean_ablate_layers
from mneme.model import LanguageModel
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="logits",
    low=None,
    high=None,
    curves={
        "mlp_attribution": ("layer", "logits", None, None),
        "attention_attribution": ("layer", "logits", None, None),
        "mlp_ablation": ("layer", "logits", None, None),
        "attention_ablation": ("layer", "logits", None, None),
    },
    source="Elhage et al. 2021; Meng et al. 2022; METHODS 3, 8a",
)
def mlp_attribution(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,  # noqa: ARG001  nothing is drawn
    progress: Progress = silent,
    position: str | int | None = None,
    is_conflict: bool = False,
) -> dict[str, Curve]:
    """MLPs beside attention, layer by layer: direct attribution of what each writes, and the harm of removing it.

    Unit:   logits of logit[correct] - logit[wrong] (means, where there are several). `.._attribution`: what the layer
            writes at the last position, norms frozen, heads with their output bias; `.._ablation`: the fall when what
            it writes is replaced by its mean over the promptset
    Range:  unbounded; negative = works for the wrong answer
    position: a label or an index, where alone writes are replaced, by the mean at each prompt's own place; None = all
            positions, each by its mean over the prompts that are so long
    is_conflict: whether the wrong answer is the memorised one, the first, and prompts count only where the model gives
            it closed book; the others are NaN
    Raises: NotApplicable without correct and wrong answers, or where the model's parts are not found
    Source: METHODS 8a (attribution), 3 (mean ablation)
    """
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("mlp_attribution needs correct and wrong answers, and this promptset has none")
    asked = as_conflict(prompts, "mlp_attribution") if is_conflict else prompts
    readout, batch = primary_readout(asked), asked.clean
    clean = ablate_head_sets(lm, batch, readout, [()]).cpu()
    found = _written(lm, asked)
    found["mlp_ablation"] = clean - mean_ablate_layers(lm, batch, readout, "mlp", position, progress=progress).cpu()
    found["attention_ablation"] = clean - mean_ablate_layers(lm, batch, readout, "attention", position).cpu()
    if is_conflict:
        unknown = ~known_items(lm, asked)
        found = {name: values.masked_fill(unknown[:, None], torch.nan) for name, values in found.items()}
    x = torch.arange(lm.n_layers, dtype=torch.float64)
    return {name: Curve(x, values) for name, values in found.items()}


def _written(lm: LanguageModel, prompts: Promptset) -> dict[str, Tensor]:
    """Direct logit attribution of each layer's MLP and attention: [item layer]."""
    correct, wrong = prompts.correct_ids, prompts.wrong_ids
    assert correct is not None  # noqa: S101  the probe checks
    assert wrong is not None  # noqa: S101  the probe checks

    def run(items: slice) -> Tensor:
        parts = direct_logit_attribution(lm, prompts.clean.select(items), correct[items], wrong[items])
        attention = parts["heads"].sum(dim=2) + parts["attention_bias"]
        return torch.stack([parts["mlps"], attention], dim=2).cpu()

    both = in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run)
    return {"mlp_attribution": both[..., 0], "attention_attribution": both[..., 1]}
