"""Which heads do what in indirect object identification, each class by its own test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.attribution import direct_logit_attribution
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import capture
from mneme.controls import Head
from mneme.copying import copying_scores
from mneme.errors import NotApplicable
from mneme.interception import AttentionCall
from mneme.knock_out import WHOLE, Kept, Node, TemplateMeans, knock_out
from mneme.model import LanguageModel
from mneme.named_attention import attention_between
from mneme.paths import path_patch
from mneme.primary_readout import primary_readout
from mneme.promptset import Promptset

# Each class with the label of the position at which its heads act.
ACTS_AT: Mapping[str, str] = MappingProxyType(
    {
        "name_mover": "end",
        "negative_mover": "end",
        "backup_mover": "end",
        "s_inhibition": "end",
        "induction": "s2",
        "duplicate_token": "s2",
        "previous_token": "s1_next",
    }
)
ROLES = tuple(ACTS_AT)
NAIVE = tuple(each for each in ROLES if each not in ("negative_mover", "backup_mover"))
LABELS = ("io", "s1", "s1_next", "s2", "end")
_ATTENTION = (("end", "io"), ("end", "s1"), ("end", "s2"), ("s2", "s1"), ("s2", "s1_next"), ("s1_next", "s1"))


@dataclass(frozen=True)
class Least:
    """From what on a test is passed.

    effect: share of the clean logit difference; attention: fraction of a row; copying: share of names that a mover
    has among its top five; shift: of a mover's attention to the indirect object less that to the subject.
    """

    effect: float = 0.05
    attention: float = 0.3
    copying: float = 0.5
    shift: float = 0.05


@dataclass(frozen=True)
class Member:
    """A head of a class: what it scores on what the class is ranked by, and from what on it is one."""

    role: str
    head: Head
    score: float
    least: float


@dataclass(frozen=True)
class Evidence:
    """What the tests found: all [layer head] float64, means over the prompts, NaN = not measurable.

    direct: fall of the logit difference when the head's direct path to the logits carries what it wrote on ABC, as a
    share of the clean difference. tracking: correlation, over prompts and the two names, of the attention from END to a
    name with what the head writes for that name. copying: top-5 copying score on the names of the prompts. to_io, to_s:
    attention from END (to_s: to both mentions). backup: what knocking the head out costs once the movers are out, less
    what it costs alone, as a share; NaN where the head attends to the subject as much. inhibition: fall of the movers'
    attention to the indirect object less that to the subject, when the head writes at END what it wrote on ABC; NaN
    where no mover comes later. to_s2: attention from END to S2. duplicate: from S2 to S1; induction: from S2 to S1 + 1;
    previous: from there to S1.
    """

    direct: Tensor
    tracking: Tensor
    copying: Tensor
    to_io: Tensor
    to_s: Tensor
    to_s2: Tensor
    backup: Tensor
    inhibition: Tensor
    duplicate: Tensor
    induction: Tensor
    previous: Tensor


def find_evidence(lm: LanguageModel, prompts: Promptset, means: TemplateMeans, least: Least) -> Evidence:
    """Run every test on some prompts; backups and inhibition are tested against the movers that the others find.

    means: of the ABC prompts, one template for each of the prompts.
    Raises: NotApplicable without ABC prompts, answers or the labels of the task.
    Source: METHODS 5a; Wang et al. 2022. Departs from it: a backup is found by what its knock-out costs in total, and
    tracking takes what a head writes for a name against the third name of the ABC prompt.
    """
    corrupt = abc_of(prompts)
    rows = attention_between(lm, prompts.clean, _ATTENTION).double()
    to_io, to_s1, to_s2, duplicate, induction, previous = rows.unbind(dim=-1)
    to_s = to_s1 + to_s2
    blank = torch.full((lm.n_layers, lm.n_heads), torch.nan, dtype=torch.float64)
    found = Evidence(
        direct=_direct(lm, prompts, corrupt),
        tracking=_tracking(lm, prompts, corrupt, to_io, to_s),
        copying=_copying(lm, prompts),
        to_io=to_io.mean(dim=0),
        to_s=to_s.mean(dim=0),
        to_s2=to_s2.mean(dim=0),
        backup=blank,
        inhibition=blank,
        duplicate=duplicate.mean(dim=0),
        induction=induction.mean(dim=0),
        previous=previous.mean(dim=0),
    )
    movers = heads_where(is_mover(found, least))
    if not movers:
        return found
    return replace(
        found,
        backup=_backup(lm, prompts, means, movers, found.to_io > found.to_s),
        inhibition=_inhibition(lm, prompts, corrupt, movers),
    )


def classes_of(found: Evidence, least: Least) -> dict[str, list[Head]]:
    """The heads of every class, see `members_of`."""
    members = members_of(found, least)
    return {role: [each.head for each in members if each.role == role] for role in ROLES}


def members_of(found: Evidence, least: Least) -> list[Member]:
    """The heads of every class, class by class, strongest evidence first; a head may be of several.

    Name movers write for the indirect object, attend to it more than to the subject, follow their attention in what
    they write, and copy. Negative movers write against it and do the opposite of what they attend to. Backups are no
    movers, and matter once those are out. Inhibition heads attend to S2 more than to the indirect object, and without
    them the movers turn to the subject. The other three are told by their attention. A score is, in this order, the
    direct effect, its negative, `backup`, `inhibition`, and attention, each as in `Evidence`.
    """
    negative = (found.direct <= -least.effect) & (found.tracking < 0)
    mover = is_mover(found, least)
    backup = ~mover & ~negative & (found.backup >= least.effect) & (found.to_io > found.to_s)
    inhibits = ~mover & (found.inhibition >= least.shift) & (found.to_s2 > found.to_io)
    tests = {
        "name_mover": (mover, found.direct, least.effect),
        "negative_mover": (negative, -found.direct, least.effect),
        "backup_mover": (backup, found.backup, least.effect),
        "s_inhibition": (inhibits, found.inhibition, least.shift),
        "induction": (found.induction >= least.attention, found.induction, least.attention),
        "duplicate_token": (found.duplicate >= least.attention, found.duplicate, least.attention),
        "previous_token": (found.previous >= least.attention, found.previous, least.attention),
    }
    return [
        Member(role, head, float(score[head]), limit)
        for role, (passed, score, limit) in tests.items()
        for head in heads_where(passed, score)
    ]


def is_mover(found: Evidence, least: Least) -> Tensor:
    """Which heads pass all of the name movers' tests: [layer head] bool."""
    return mover_tests(found, least).all(dim=0)


def mover_tests(found: Evidence, least: Least) -> Tensor:
    """Which heads write for the answer, follow their attention, copy, and look at it more than at the subject.

    Shape: [test layer head] bool, the four tests in this order.
    """
    return torch.stack(
        [
            found.direct >= least.effect,
            found.tracking > 0,
            found.copying >= least.copying,
            found.to_io > found.to_s,
        ]
    )


def heads_where(passed: Tensor, by: Tensor | None = None) -> list[Head]:
    """The heads that passed [layer head] bool, by falling evidence, ties by layer and head."""
    heads = [(layer, head) for layer, head in torch.nonzero(passed).tolist()]
    return heads if by is None else sorted(heads, key=lambda each: (-float(by[each]), each))


def nodes_of(classes: Mapping[str, list[Head]], roles: tuple[str, ...] = ROLES) -> tuple[Node, ...]:
    """The heads of some classes, each where its class acts, none twice."""
    return tuple(dict.fromkeys((*head, ACTS_AT[role]) for role in roles for head in classes[role]))


def abc_of(prompts: Promptset) -> Batch:
    """The ABC prompts with the labels of the clean ones; raises NotApplicable where the promptset is no IOI."""
    missing = [each for each in LABELS if each not in prompts.clean.labels]
    if prompts.corrupt is None or prompts.correct_ids is None or prompts.wrong_ids is None or missing:
        raise NotApplicable(
            "the circuit of indirect objects needs the promptset ioi, with its pairs, answers and labels"
        )
    if prompts.facts.get("corrupt", "abc") != "abc":
        raise NotApplicable("the circuit of indirect objects needs ABC prompts: set the promptset's corrupt to abc")
    return replace(prompts.corrupt, labels=prompts.clean.labels)


def _direct(lm: LanguageModel, prompts: Promptset, corrupt: Batch) -> Tensor:
    readout = primary_readout(prompts)
    heads = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    clean = ablate_head_sets(lm, prompts.clean, readout, [()]).cpu().double()
    patched = path_patch(lm, prompts.clean, corrupt, readout, heads).cpu().double()
    return ((clean - patched).mean(dim=0) / clean.mean()).reshape(lm.n_layers, lm.n_heads)


def _tracking(lm: LanguageModel, prompts: Promptset, corrupt: Batch, to_io: Tensor, to_s: Tensor) -> Tensor:
    """Correlation of attention to a name and what is written for it, over prompts and both names: [layer head]."""
    clean, labels = prompts.clean, prompts.clean.labels
    rows = torch.arange(len(prompts))
    io, s = (clean.ids[rows, labels[name]] for name in ("io", "s2"))
    third = corrupt.ids[rows, labels["s2"]]

    def written(name: Tensor) -> Tensor:
        def run(some: slice) -> Tensor:
            return direct_logit_attribution(lm, clean.select(some), name[some], third[some])["heads"].double().cpu()

        return in_batches(lm, len(prompts), clean.ids.shape[1], run)

    attended = torch.cat([to_io, to_s]).flatten(1)
    return _correlation(attended, torch.cat([written(io), written(s)]).flatten(1)).reshape(to_io.shape[1:])


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's r of columns [item head]: [head], NaN where one of the two does not vary."""
    one, other = one - one.mean(dim=0), other - other.mean(dim=0)
    size = (one.square().sum(dim=0) * other.square().sum(dim=0)).sqrt()
    return torch.where(size > 1e-12, (one * other).sum(dim=0) / size, torch.nan)


def _copying(lm: LanguageModel, prompts: Promptset) -> Tensor:
    """Top-5 copying of every head, of the names of the prompts as they are after the first MLP (METHODS 1b).

    Ones where circuits have no fixed weights, which decides nothing then.
    """
    clean, rows = prompts.clean, torch.arange(len(prompts))
    names = {token for label in ("io", "s2") for token in clean.ids[rows, clean.labels[label]].tolist()}
    try:
        return copying_scores(lm, torch.tensor(sorted(names)), "effective").top5.double()
    except NotApplicable:
        return torch.ones(lm.n_layers, lm.n_heads, dtype=torch.float64)


def _backup(
    lm: LanguageModel, prompts: Promptset, means: TemplateMeans, movers: list[Head], is_tried: Tensor
) -> Tensor:
    """What tried heads cost once the movers are out, less what they cost alone, as a share: [layer head], or NaN."""
    out = [(*head, "end") for head in movers]
    heads = heads_where(is_tried)
    alone: list[Kept] = [WHOLE.without([(*head, "end")]) for head in heads]
    after = [WHOLE.without([*out, (*head, "end")]) for head in heads]
    readout = primary_readout(prompts)
    run = knock_out(lm, prompts.clean, readout, [WHOLE, WHOLE.without(out), *alone, *after], means).double().mean(dim=0)
    costs_alone, costs_after = run[0] - run[2 : 2 + len(heads)], run[1] - run[2 + len(heads) :]
    found = torch.full(is_tried.shape, torch.nan, dtype=torch.float64)
    found[is_tried] = (costs_after - costs_alone) / run[0]
    return found


def _inhibition(lm: LanguageModel, prompts: Promptset, corrupt: Batch, movers: list[Head]) -> Tensor:
    clean = prompts.clean
    rows = torch.arange(len(clean))
    z = capture(lm, corrupt, ["z"])["z"].transpose(2, 3)[rows, :, clean.labels["end"]]  # [item layer head width]
    found = torch.full((lm.n_layers, lm.n_heads), torch.nan, dtype=torch.float64)

    def preference(sender: Head | None, later: list[Head]) -> float:
        def change(call: AttentionCall, now: Tensor, some: slice) -> Tensor:
            if sender is None or call.layer != sender[0]:
                return now
            now = now.clone()
            now[torch.arange(len(now)), clean.labels["end"][some], sender[1]] = z[some, call.layer, sender[1]].to(now)
            return now

        shares = attention_between(lm, clean, _ATTENTION[:3], change).double()
        names = shares[..., 0] - shares[..., 1] - shares[..., 2]
        return float(torch.stack([names[:, layer, head] for layer, head in later]).mean())

    for layer in range(lm.n_layers):
        later = [each for each in movers if each[0] > layer]
        if later:
            before = preference(None, later)
            for head in range(lm.n_heads):
                found[layer, head] = before - preference((layer, head), later)
    return found
