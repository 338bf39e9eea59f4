"""What a model loses without the tokens that are said to matter, and what it keeps with them alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mneme.arguments import one_of, whole_number
from mneme.batching import in_batches
from mneme.curve import Curve
from mneme.embedding_changes import Embedded
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.token_importance import METHODS, token_importance


@probe(
    level="curve",
    unit="logits",
    low=None,
    high=None,
    curves={
        "comprehensiveness": ("tokens", "logits", None, None),
        "sufficiency": ("tokens", "logits", None, None),
        "random_comprehensiveness": ("tokens", "logits", None, None),
        "random_sufficiency": ("tokens", "logits", None, None),
        "evidence_hit": ("tokens", "fraction of prompts", 0.0, 1.0),
    },
    min_tokens=8,
    source="DeYoung et al. 2020; Neely et al. 2022; METHODS 19h",
)
def deletion_curve(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    method: str = "attention",
    ks: Sequence[int] = (1, 2, 4, 8, 16),
    n_draws: int = 10,
    evidence: str = "value",
) -> dict[str, Curve]:
    """The logit difference without the k tokens of most importance, and with these alone; the others are blank.

    x: tokens: k; NaN where a prompt has fewer than k tokens before its last one, which asks and always stays
    method: as in `attribution_agreement`; what speaks for the answer comes first, ties in the order of the prompt
    comprehensiveness: logit difference of the whole prompt minus that without the k tokens, larger = they mattered
    sufficiency: minus that of the k tokens alone, smaller = they were enough
    random_comprehensiveness, random_sufficiency: of k tokens drawn at random, mean of n_draws: the control
    evidence_hit: 1 where the token labelled `evidence` is among the k, else 0; NaN where the prompts have no such label
    A blank token is the mean embedding of the vocabulary, at the same position.
    Raises: BadInput for ks that are no list of numbers; NotApplicable without correct and wrong answers, for prompts
            under 8 tokens, or where integrated gradients vouch for no prompt
    Source: METHODS 19h
    """
    method = one_of("deletion_curve.method", method, tuple(METHODS))
    sizes = _sizes(ks)
    n_draws = whole_number("deletion_curve.n_draws", n_draws, 1)
    importance = token_importance(lm, prompts, method, progress)
    if bool(importance.isnan().all()):
        raise NotApplicable(f"deletion_curve: {method} vouches for none of the prompts")
    places = torch.arange(importance.shape[1])
    is_asking = places >= prompts.clean.lengths[:, None] - 1
    chosen = _first(importance, is_asking, sizes)
    rng = np.random.default_rng(probe_seed)
    drawn = [_first(torch.from_numpy(rng.random(importance.shape)), is_asking, sizes) for _ in range(n_draws)]
    whole, without, alone = _losses(lm, prompts, [chosen, *drawn], progress)
    is_missing = (importance[:, :1].isnan() | (torch.tensor(sizes) > prompts.clean.lengths[:, None] - 1)).expand(
        len(prompts), len(sizes)
    )
    values = {
        "comprehensiveness": whole - without[0],
        "sufficiency": whole - alone[0],
        "random_comprehensiveness": whole - without[1:].mean(dim=0),
        "random_sufficiency": whole - alone[1:].mean(dim=0),
        "evidence_hit": _hits(prompts, chosen, evidence),
    }
    x = torch.tensor(sizes, dtype=torch.float64)
    return {measure: Curve(x, each.masked_fill(is_missing, torch.nan)) for measure, each in values.items()}


def _sizes(ks: object) -> list[int]:
    if not isinstance(ks, list | tuple) or not ks:
        raise BadInput(f"deletion_curve.ks is {ks!r}: give a list of numbers of tokens, such as [1, 2, 4]")
    return sorted({whole_number("deletion_curve.ks", k, 1) for k in ks})


def _first(importance: Tensor, is_asking: Tensor, sizes: list[int]) -> Tensor:
    """Which tokens are among the k of most importance, never the last one: bool [item k position]."""
    order = (
        importance.nan_to_num(-torch.inf)
        .masked_fill(is_asking, -torch.inf)
        .argsort(dim=1, descending=True, stable=True)
    )
    rank = order.argsort(dim=1)
    return (rank[:, None] < torch.tensor(sizes)[:, None]) & ~is_asking[:, None]


def _losses(
    lm: LanguageModel, prompts: Promptset, chosen: list[Tensor], progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Logit difference of whole prompts [item 1], and without and with each choice of tokens alone [choice item k]."""
    assert prompts.correct_ids is not None  # noqa: S101  token_importance refuses
    assert prompts.wrong_ids is not None  # noqa: S101
    correct, wrong = prompts.correct_ids, prompts.wrong_ids

    def run(items: slice) -> Tensor:
        given = Embedded.of(lm, prompts.clean.select(items), correct[items], wrong[items])
        n_tokens = given.batch.ids.shape[1]
        last = given.batch.lengths[:, None] - 1
        stays = torch.arange(n_tokens, device=lm.device) >= last
        with torch.no_grad():
            columns = [given.read(given.clean)]
        for each in chosen:
            for k in range(each.shape[1]):
                among = each[items, k, :n_tokens].to(lm.device)
                columns += [given.read_without(among), given.read_without(~among & ~stays)]
        return torch.stack(columns, dim=1).cpu()

    found = in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress)
    by_choice = found[:, 1:].reshape(len(prompts), len(chosen), -1, 2).permute(3, 1, 0, 2)
    return found[:, :1], by_choice[0], by_choice[1]


def _hits(prompts: Promptset, chosen: Tensor, evidence: str) -> Tensor:
    """[item k]"""
    if evidence not in prompts.clean.labels:
        return torch.full(chosen.shape[:2], torch.nan)
    place = prompts.clean.labels[evidence][:, None, None].expand(-1, chosen.shape[1], 1)
    return chosen.gather(2, place)[:, :, 0].float()
