"""How well a model does when each token skips the layers that are void for it, or as many others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture
from mneme.curve import Curve
from mneme.errors import BadInput
from mneme.layer_skipping import check_depth, hidden_with_skips, norm_changes, relative_changes, void_layers_of
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.scoring import scores_of_hidden
from mneme.unembedding import widened

_WAYS = ("void", "random", "least_changing", "first", "last")


@probe(
    level="curve",
    unit="share of right answers",
    low=0.0,
    high=1.0,
    curves={
        "accuracy_without_void": ("alpha", "share of right answers", 0.0, 1.0),
        "accuracy_without_random": ("alpha", "share of right answers", 0.0, 1.0),
        "accuracy_without_least_changing": ("alpha", "share of right answers", 0.0, 1.0),
        "accuracy_without_first": ("alpha", "share of right answers", 0.0, 1.0),
        "accuracy_without_last": ("alpha", "share of right answers", 0.0, 1.0),
        "accuracy_change": ("alpha", "share of right answers", -1.0, 1.0),
        "share_active": ("alpha", "share of layers", 0.0, 1.0),
    },
    min_tokens=2,
    source="Shemiranifar 2025; METHODS 19f",
)
def void_skipping(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    alphas: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
) -> dict[str, Curve]:
    """Accuracy when a token leaves each layer that is void for it as it entered it, for thresholds alpha.

    Which layers are void is read from the unchanged run, token by token; other tokens still see the keys and values of
    a token that skips.
    x:      alpha
    accuracy_without_void: with answers, 1 where a correct one has the highest logit alone at the end of the prompt;
            without, the share of next tokens that have it
    accuracy_without_random, least_changing, first, last: so many other layers of that token are skipped: drawn at
            random, of the least relative change, the lowest, the highest
    accuracy_change: accuracy_without_void minus the accuracy of the whole model on the same prompt
    share_active: share of layers that are not void, mean over tokens
    Raises: BadInput for alphas that are no numbers in (0, 1]; NotApplicable for models of fewer than 4 layers and
            prompts of one token.
    Source: METHODS 19f; differs from it in: skipping acts while the prompt is read, since these answers are one token
    """
    check_depth(lm, "void_skipping")
    alphas = _checked(alphas)
    batch = lm.batch(prompts.clean)
    generator = torch.Generator().manual_seed(probe_seed)
    drawn = torch.rand(*batch.ids.shape, lm.n_layers, generator=generator).to(batch.ids.device)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        answers = None if prompts.correct_ids is None else prompts.correct_ids[items].to(part.ids.device)
        states = capture(lm, part, ["residual"])["residual"]
        changes, relative = norm_changes(states), relative_changes(states)
        whole = _accuracy(lm, part, answers, torch.zeros_like(changes, dtype=torch.bool))
        columns = []
        for alpha in alphas:
            void = void_layers_of(changes, alpha)
            ways = ways_to_skip(void, drawn[items, : void.shape[1]], relative)
            found = [_accuracy(lm, part, answers, skipped) for skipped in ways]
            active = (~void).float().mean(dim=2).masked_fill(part.padding == 0, torch.nan).nanmean(dim=1)
            columns.append(torch.stack([*found, found[0] - whole, active], dim=1))
        return torch.stack(columns, dim=2).cpu()

    with torch.no_grad():
        found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    names = [*(f"accuracy_without_{way}" for way in _WAYS), "accuracy_change", "share_active"]
    x = torch.tensor(alphas, dtype=torch.float64)
    return {name: Curve(x, found[:, place]) for place, name in enumerate(names)}


def ways_to_skip(void: Tensor, drawn: Tensor, relative: Tensor) -> list[Tensor]:
    """The void layers [item position layer] bool, and four other sets with as many layers for each token."""
    n_skipped = void.sum(dim=2, keepdim=True)
    layers = torch.arange(void.shape[2], device=void.device).expand(void.shape)
    ranks = [each.argsort(dim=2).argsort(dim=2) for each in (drawn, relative)]
    return [void, *(rank < n_skipped for rank in ranks), layers < n_skipped, layers >= void.shape[2] - n_skipped]


def _accuracy(lm: LanguageModel, part: Batch, answers: Tensor | None, skipped: Tensor) -> Tensor:
    """[item] float32"""
    hidden = hidden_with_skips(lm, part, skipped)
    if answers is None:
        return scores_of_hidden(lm, hidden, part)[1].nanmean(dim=1)
    last = hidden[torch.arange(len(part), device=hidden.device), part.lengths - 1]
    logits = widened(lm.backbone.unembed(last))
    top, token = logits.max(dim=1)
    is_alone = (logits == top[:, None]).sum(dim=1) == 1
    return (is_alone & (answers == token[:, None]).any(dim=1)).float()


def _checked(alphas: object) -> list[float]:
    if not isinstance(alphas, list | tuple) or not alphas:
        raise BadInput(f"void_skipping.alphas is {alphas!r}: give a list of thresholds, such as [0.4, 0.8]")
    for alpha in alphas:
        void_layers_of(torch.zeros(1, 2), alpha)
    return sorted({float(alpha) for alpha in alphas})
