"""How much of the difference between clean and corrupt prompts each head carries, by patching its output."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.arguments import one_of
from mneme.batch import Batch
from mneme.errors import NotApplicable
from mneme.model import LanguageModel
from mneme.patching import patch_heads
from mneme.primary_readout import primary_readout
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.stats import bootstrap_mean

LEAST_GAP = 0.5  # logits; METHODS 3: there is nothing to patch below


@probe(
    level="intervention",
    unit="logits",
    low=None,
    high=None,
    effect_name="patch_{direction}",
    source="Vig et al. 2020; Wang et al. 2022; Zhang and Nanda 2023; METHODS 3",
)
def head_patching(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    direction: str = "denoise",
    position: str | None = None,
) -> dict[str, Tensor]:
    """Change of the logit difference m when Z of one head is taken from the other prompt of its pair.

    Unit:   logits, larger = the head carries more. `denoise`: m(corrupt, patched with clean) - m(corrupt); `noise`:
            m(clean) - m(clean, patched with corrupt)
    Range:  unbounded; 0 = no effect; over the gap m(clean) - m(corrupt), 1 = all of it
    direction: `denoise` or `noise`
    position: a position label of the prompts, to patch there only; None = all positions

    Returns: effects [item layer head]; gap [item], m(clean) - m(corrupt); normalised [layer head], mean effect over
    mean gap.
    Raises: NotApplicable without pairs or answers, for fewer than two prompts or clusters, and where the mean gap is
    under 0.5 logits or its 95 % interval is not wholly above 0; BadInput for an unknown label.
    Source: METHODS 3 (denoise, noise, reject)
    """
    direction = one_of("head_patching.direction", direction, ("denoise", "noise"))
    corrupt_prompts = _corrupt(prompts)
    readout = primary_readout(prompts)
    clean = ablate_head_sets(lm, prompts.clean, readout, [()]).cpu()[:, 0]
    corrupt = ablate_head_sets(lm, corrupt_prompts, readout, [()]).cpu()[:, 0]
    gap = clean - corrupt
    _require_gap(gap, prompts, probe_seed)
    pair = (corrupt_prompts, prompts.clean) if direction == "denoise" else (prompts.clean, corrupt_prompts)
    positions = None if position is None else [position]
    patched = patch_heads(lm, *pair, readout, positions, progress=progress).cpu()
    patched = patched if position is None else patched[..., 0]
    effects = patched - corrupt[:, None, None] if direction == "denoise" else clean[:, None, None] - patched
    return {"effects": effects, "gap": gap, "normalised": effects.mean(dim=0) / gap.mean()}


def _corrupt(prompts: Promptset) -> Batch:
    """The corrupt prompts with the labels of their clean ones, which they align with token by token."""
    if prompts.corrupt is None:
        raise NotApplicable("head_patching needs clean and corrupt prompts, and this promptset has no corrupt ones")
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable("head_patching needs prompts with correct and wrong answers, and this promptset has none")
    return replace(prompts.corrupt, labels=prompts.clean.labels)


def _require_gap(gap: Tensor, prompts: Promptset, seed: int) -> None:
    clusters = None if prompts.clusters is None else prompts.clusters.numpy()
    found = bootstrap_mean(gap.double().numpy(), seed=seed, clusters=clusters)
    if int(found.n_clusters) < 2:
        raise NotApplicable("head_patching needs two prompts at least, of two clusters where they have clusters")
    if not (found.low > 0 and found.estimate >= LEAST_GAP):
        raise NotApplicable(
            f"head_patching: the logit difference falls by {float(found.estimate):.3g} [{float(found.low):.3g}, "
            f"{float(found.high):.3g}] from clean to corrupt prompts, so there is nothing to patch: it must fall by "
            f"{LEAST_GAP} at least, with an interval above 0"
        )
