"""Right or wrong as readouts, for interventions: what the behavior probes of the same names say of a clean run."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.copies import predicting_positions
from mneme.errors import NotApplicable
from mneme.promptset import Promptset
from mneme.readouts import Readout, answers_of


def answer_accuracy_readout(prompts: Promptset, who: str) -> Readout:
    """1 where the best correct answer has a higher logit than the best wrong one, else 0; a tie is no credit.

    Unit: fraction. Raises: NotApplicable without correct and wrong answers. Source: METHODS 5a (LD > 0)
    """
    if prompts.correct_ids is None or prompts.wrong_ids is None:
        raise NotApplicable(f"{who} needs prompts with correct and wrong answers, and this promptset has none")
    sides = [answers_of(prompts.correct_ids, "correct"), answers_of(prompts.wrong_ids, "wrong")]
    n_correct, answers = sides[0].shape[1], torch.cat(sides, dim=1)

    def value(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        known = logits.masked_fill(answers.to(logits.device)[items] < 0, -torch.inf)
        return (known[:, :n_correct].amax(dim=1) > known[:, n_correct:].amax(dim=1)).to(logits)

    return Readout("answer_accuracy", "fraction", value, columns=answers.clamp_min(0))


def top1_accuracy_readout(prompts: Promptset, who: str) -> Readout:
    """1 where a correct answer is the first choice of the whole vocabulary, else 0; a tie is no credit.

    Unit: fraction. Raises: NotApplicable without correct answers. Source: METHODS 5c (accuracy over the vocabulary)
    """
    if prompts.correct_ids is None:
        raise NotApplicable(f"{who} needs prompts with correct answers, and this promptset has none")
    answers = answers_of(prompts.correct_ids, "correct")

    def value(logits: Tensor, items: Tensor, _: Tensor) -> Tensor:
        named = answers.to(logits.device)[items]
        best = logits.gather(1, named.clamp_min(0)).masked_fill(named < 0, -torch.inf).amax(dim=1)
        top = logits.amax(dim=1)
        return ((best == top) & ((logits == top[:, None]).sum(dim=1) == 1)).to(logits)

    return Readout("top1_accuracy", "fraction", value)


def copy_accuracy_readout(prompts: Promptset, who: str) -> Readout:
    """Share of tokens of copy 2 that are the first choice, over the tokens that copy 1 makes known; a tie is no credit.

    Unit: fraction. Raises: NotApplicable for prompts without a known period. Source: METHODS 1a (behavioural twin)
    """
    batch = prompts.clean
    mask = torch.zeros(batch.ids.shape, dtype=torch.bool)
    mask[:, predicting_positions(prompts, 2, who)] = True

    def value(logits: Tensor, items: Tensor, positions: Tensor) -> Tensor:
        target = batch.ids.to(logits.device)[items, positions + 1]
        top = logits.amax(dim=1)
        is_first = logits.gather(1, target[:, None])[:, 0] == top
        return (is_first & ((logits == top[:, None]).sum(dim=1) == 1)).to(logits)

    return Readout("copy_accuracy", "fraction", value, positions=mask)
