"""Bigram-Backcopy (METHODS 18): after most characters the next follows a bigram table, after a few it copies back.

A head that copies has nothing to do on the other rows; where it rests then is what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor

from mneme.training import Measure, measured_mean

N_TRIGGERS = 3
SINK_EPS = 0.3
_LEAST_COUNT = 20  # a rarer character is left out of the prose


@dataclass(frozen=True)
class Backcopy:
    """The process over characters; its first token, where there is one, has the id after the last character.

    table [last next]: probabilities of the next character, float64; triggers [trigger]: the most frequent characters,
    whose next character is the one before them instead; start [character]: of the first character, never a trigger.
    """

    characters: str
    table: Tensor
    triggers: Tensor
    start: Tensor

    @property
    def first_id(self) -> int:
        """Id of the first token."""
        return len(self.characters)

    def draw(self, n_rows: int, length: int, generator: torch.Generator, *, has_first: bool) -> Tensor:
        """Ids [item position] of `length` tokens, the first token among them where there is one.

        The character before a trigger is never a trigger (the first one is not, and what a trigger copies was followed
        by one already), so what has to be copied is never ambiguous.
        """
        n_characters = length - 1 if has_first else length
        draws = torch.rand(n_rows, n_characters, dtype=torch.float64, generator=generator)
        table, is_trigger = self.table.cumsum(dim=1), self.is_trigger(torch.arange(len(self.characters)))
        columns = [_pick(self.start.cumsum(dim=0).expand(n_rows, -1), draws[:, :1])]
        for place in range(1, n_characters):
            last = columns[-1]
            drawn = _pick(table[last], draws[:, place : place + 1])
            before = columns[-2] if place > 1 else drawn
            columns.append(torch.where(is_trigger[last], before, drawn))
        first = [torch.full((n_rows,), self.first_id)] if has_first else []
        return torch.stack([*first, *columns], dim=1)

    def is_trigger(self, ids: Tensor) -> Tensor:
        """Which tokens are triggers."""
        return torch.isin(ids, self.triggers)


def backcopy_of_prose() -> Backcopy:
    """The process of the project's own prose in lower case, without its rare characters."""
    folder = resources.files("mneme.promptsets").joinpath("texts")
    paths = sorted((each for each in folder.iterdir() if each.name.endswith(".txt")), key=lambda each: each.name)
    return backcopy_of(" ".join(path.read_text(encoding="utf-8").lower() for path in paths))


def backcopy_of(text: str) -> Backcopy:
    """The process of a text: counts of pairs, its three most frequent characters as triggers (ties: the earlier)."""
    text = " ".join(text.split())
    counts = {each: text.count(each) for each in sorted(set(text))}
    kept = "".join(each for each, count in counts.items() if count >= _LEAST_COUNT)
    places = {each: index for index, each in enumerate(kept)}
    ids = torch.tensor([places[each] for each in text if each in places])
    pairs = torch.zeros(len(kept), len(kept), dtype=torch.float64)
    pairs.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1, dtype=torch.float64), accumulate=True)
    frequency = torch.bincount(ids, minlength=len(kept)).double()
    triggers = frequency.argsort(descending=True, stable=True)[:N_TRIGGERS]
    start = frequency.index_fill(0, triggers, 0.0)
    return Backcopy(kept, pairs / pairs.sum(dim=1, keepdim=True), triggers, start / start.sum())


def _pick(cumulative: Tensor, draws: Tensor) -> Tensor:
    """Index [item] in which a uniform draw [item 1] falls; cumulative [item choice]."""
    picked = torch.searchsorted(cumulative.contiguous(), draws.contiguous(), right=True)[:, 0]
    return picked.clamp(max=cumulative.shape[1] - 1)


def excess_losses(process: Backcopy, ids: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """What a model loses to the best guess, nats per item [item], on trigger rows and on the others.

    On a trigger row the best guess is certain; on another it is the table's row, and the excess is the divergence
    KL(table || model), which needs no draw of the next token. Rows 0 (the first token, or a first character) and the
    last count on neither side of the comparison.
    """
    log_probs = logits.double().log_softmax(dim=-1)[..., : len(process.characters)]
    rows = slice(1, ids.shape[1] - 1)
    here, before, found = ids[:, rows], ids[:, :-2], log_probs[:, rows]
    is_trigger = process.is_trigger(here)
    copied = -found.gather(-1, before.clamp(max=len(process.characters) - 1)[..., None])[..., 0]
    table = process.table[here]
    divergence = (torch.special.xlogy(table, table) - table * found.masked_fill(table == 0, 0.0)).sum(dim=-1)
    return {"excess_loss_trigger": _mean(copied, is_trigger), "excess_loss_other": _mean(divergence, ~is_trigger)}


def resting_head(process: Backcopy, ids: Tensor, attention: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Where heads rest, per item [item]: attention [layer item head query key], values [layer item head key width].

    sink_score: share of heads with alpha_0 > 0.3 (METHODS 1c). The rest is of the head that attends most to the first
    token on rows that are no trigger: its weight there and on trigger rows (`to_first_*`), the same as a share of the
    row's whole weight (`share_to_first_*`: the same number under softmax), its weight on the token before a trigger,
    and value_ratio: the norm of the first token's value over the mean norm of the others. Row 0 counts in alpha_0 only.
    """
    is_trigger = process.is_trigger(ids)
    is_trigger[:, 0] = False
    is_other = ~is_trigger
    is_other[:, 0] = False
    alpha = attention[..., 0].mean(dim=-1)  # [layer item head]
    rests = _mean(attention[..., 0], is_other[None, :, None]).nanmean(dim=1)  # [layer head]
    layer, head = divmod(int(rests.argmax()), rests.shape[1])
    weights, norms = attention[layer, :, head], values[layer, :, head].norm(dim=-1)
    shares = weights / weights.sum(dim=-1, keepdim=True)
    before = weights.diagonal(offset=-1, dim1=-2, dim2=-1)
    return {
        "sink_score": (alpha > SINK_EPS).double().mean(dim=(0, 2)),
        "to_first_other": _mean(weights[..., 0], is_other),
        "to_first_trigger": _mean(weights[..., 0], is_trigger),
        "share_to_first_other": _mean(shares[..., 0], is_other),
        "share_to_first_trigger": _mean(shares[..., 0], is_trigger),
        "to_previous_trigger": _mean(before, is_trigger[:, 1:]),
        "value_ratio": norms[:, 0] / norms[:, 1:].mean(dim=-1),
    }


def backcopy_measures(
    process: Backcopy, ids: Tensor, logits: Tensor, attention: Tensor, values: Tensor
) -> dict[str, Measure]:
    """All measures with their intervals over items; the losses in nats, the rest without unit."""
    losses, rests = excess_losses(process, ids, logits), resting_head(process, ids, attention, values)
    found = {name: measured_mean(each.numpy(), "nats") for name, each in losses.items()}
    return found | {name: measured_mean(each.numpy(), _UNITS.get(name, "weight")) for name, each in rests.items()}


_UNITS = {
    "sink_score": "fraction of heads",
    "share_to_first_other": "fraction of attention",
    "share_to_first_trigger": "fraction of attention",
    "value_ratio": "ratio",
}


def _mean(values: Tensor, is_meant: Tensor) -> Tensor:
    """Mean over the last axis where `is_meant`; NaN where none is."""
    counted = is_meant.expand(values.shape).to(values.dtype)
    return (values * counted).sum(dim=-1) / counted.sum(dim=-1)
