"""What a model says of two answers at odds, and what it knows without the context."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mneme.ablation import ablate_head_sets
from mneme.errors import NotApplicable
from mneme.fact_conflicts import (
    CONTEXT,
    MEMORY,
    OTHER,
    as_conflict,
    known_items,
    memory_readout,
    outcome_readout,
    outcomes,
    question_alone,
    share_of,
)
from mneme.model import LanguageModel
from tests.conflict_prompts import conflict_prompts
from tests.planted import FIRST_ID, conflict_model


def planted(context: float = 3.0, memory: float = 2.0) -> LanguageModel:
    return LanguageModel(conflict_model(context, memory), "planted", None, "cpu")


def test_the_question_alone_is_the_first_token_and_the_question() -> None:
    prompts = conflict_prompts()
    alone = question_alone(prompts)
    assert alone is not None
    assert torch.equal(alone.ids, torch.stack([torch.full((8,), FIRST_ID), prompts.clean.ids[:, -1]], dim=1))
    unlabelled = replace(prompts, clean=replace(prompts.clean, labels={}))
    assert question_alone(unlabelled) is None
    assert known_items(planted(), unlabelled).all()


def test_a_question_of_another_length_in_each_prompt_keeps_its_length() -> None:
    prompts = conflict_prompts()
    starts = torch.tensor([1, 2, 3, 3, 2, 1, 3, 2])
    alone = question_alone(replace(prompts, clean=replace(prompts.clean, labels={"question_first": starts})))
    assert alone is not None
    assert torch.equal(alone.lengths, 5 - starts)
    for item, start in enumerate(starts.tolist()):
        asked = alone.ids[item, 1 : int(alone.lengths[item])]
        assert torch.equal(asked, prompts.clean.ids[item, start:])


def test_a_fact_is_known_where_the_memorised_answer_is_the_only_best_one() -> None:
    prompts = conflict_prompts(n_unknown=2)
    assert known_items(planted(), prompts).tolist() == [True] * 6 + [False] * 2
    assert not known_items(planted(memory=0.0), prompts).any(), "all tokens tie"


@pytest.mark.parametrize(("memory", "said"), [(2.0, CONTEXT), (4.0, MEMORY), (3.0, OTHER)])
def test_the_stronger_head_decides_and_a_tie_is_neither(memory: float, said: float) -> None:
    lm, prompts = planted(memory=memory), conflict_prompts(n_unknown=1)
    codes = outcomes(lm, prompts)
    assert codes[:7].tolist() == [said] * 7
    assert codes[7:].isnan().all()
    by_readout = ablate_head_sets(lm, prompts.clean, outcome_readout(prompts), [()])[:7, 0]
    assert torch.equal(by_readout, codes[:7])


def test_the_three_shares_sum_to_one_and_keep_what_is_missing() -> None:
    codes = torch.tensor([[CONTEXT, MEMORY], [OTHER, torch.nan]])
    shares = torch.stack([share_of(kind, codes) for kind in ("context", "memory", "other")])
    assert shares[:, 0, 0].tolist() == [1, 0, 0]
    assert shares[:, 0, 1].tolist() == [0, 1, 0]
    assert shares[:, 1, 0].tolist() == [0, 0, 1]
    assert shares[:, 1, 1].isnan().all()


def test_any_of_several_answers_of_the_context_counts_and_padding_is_no_answer() -> None:
    prompts = conflict_prompts()
    logits = torch.zeros(8, 128)
    logits[:, 77] = 1.0
    several = replace(prompts, correct_ids=torch.cat([torch.full((8, 1), 77), torch.full((8, 1), -1)], dim=1))
    assert outcome_readout(several)(logits).tolist() == [CONTEXT] * 8
    logits[:, 0] = 2.0  # token 0 is what padding would be taken for
    assert outcome_readout(several)(logits).tolist() == [OTHER] * 8


def test_the_memorised_answer_is_the_first_wrong_one() -> None:
    prompts = conflict_prompts()
    assert prompts.wrong_ids is not None
    more = replace(prompts, wrong_ids=torch.cat([prompts.wrong_ids, torch.full((8, 1), 99)], dim=1))
    assert torch.equal(as_conflict(more, "a probe").wrong_ids, prompts.wrong_ids)  # type: ignore[arg-type]
    logits = torch.zeros(8, 128)
    logits[:4, 99] = 1.0
    logits[4:] = logits[4:].scatter(1, prompts.wrong_ids[4:], 1.0)
    assert memory_readout(as_conflict(more, "a probe"))(logits).tolist() == [0.0] * 4 + [1.0] * 4


@pytest.mark.parametrize("part", ["correct_ids", "wrong_ids"])
def test_prompts_without_answers_are_no_conflict(part: str) -> None:
    with pytest.raises(NotApplicable, match="a probe needs the context's answer"):
        as_conflict(replace(conflict_prompts(), **{part: None}), "a probe")
