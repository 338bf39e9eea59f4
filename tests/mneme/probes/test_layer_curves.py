"""Curves over layers: the lens on a planted model, and a concept planted in one layer of it."""

from __future__ import annotations

import pytest
import torch

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable
from mneme.measuring import measure
from mneme.model import LanguageModel
from mneme.probe import probes
from mneme.promptset import Promptset
from tests.planted import FIRST_ID, copy_model

LENS, DEPTH = probes.get("logit_lens"), probes.get("concept_depth")
PERIOD = 8


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel(copy_model(), "copy", None, "cpu")


def repeated(n_items: int) -> Promptset:
    """A list and its beginning again, one token short of the answer."""
    generator = torch.Generator().manual_seed(0)
    body = torch.stack([torch.randperm(100, generator=generator)[:PERIOD] for _ in range(n_items)])
    ids = torch.cat([torch.full((n_items, 1), FIRST_ID), body, body[:, :4]], dim=1)
    return Promptset(Batch.of(ids), correct_ids=body[:, 4:5])


def curves(
    probe, prompts: Promptset, lm: LanguageModel, seed: int = 0, **parameters: object
) -> dict[str, torch.Tensor]:
    found = measure(probe, parameters, prompts, lm=lm, probe_seed=seed)
    assert all(found[f"curve.{each}.x"].tolist() == [0.0, 1.0, 2.0] for each in probe.curves)
    return {each: found[f"curve.{each}.values"] for each in probe.curves}


def test_the_answer_ranks_first_from_the_layer_that_copies_it(lm) -> None:
    found = curves(LENS, repeated(5), lm)
    assert found["answer_rank"].tolist() == [[128.0, 128.0, 1.0]] * 5
    assert found["argmax_agreement"].tolist() == [[0.0, 0.0, 1.0]] * 5
    assert found["answer_probability"][:, :2].flatten().tolist() == pytest.approx([1 / 128] * 10)
    assert bool((found["answer_probability"][:, 2] > 0.99).all())
    assert found["kl_to_final"][:, 2].abs().max() < 1e-6


def test_layers_in_a_random_order_show_the_answer_early_in_some_prompts(lm) -> None:
    found = curves(LENS, repeated(40), lm, order="shuffled")["answer_rank"][:, 1]
    assert set(found.tolist()) == {1.0, 128.0}  # the copying layer comes first in about half of them
    assert 10 <= int((found == 1).sum()) <= 30
    other = curves(LENS, repeated(40), lm, seed=1, order="shuffled")["answer_rank"][:, 1]
    assert not torch.equal(found, other)


def test_the_lens_refuses_what_it_cannot_see(lm) -> None:
    with pytest.raises(NotApplicable, match="prompts with correct answers"):
        measure(LENS, {}, Promptset(repeated(3).clean), lm=lm)
    with pytest.raises(BadInput, match="choose one of own, shuffled"):
        measure(LENS, {"order": "reversed"}, repeated(3), lm=lm)


def test_what_is_known_by_heart_of_each_answer_is_read_after_the_copying_layer_and_is_not_selective(lm) -> None:
    """Ten answers of one label each, split over the folds: the labels of answers are learnt, any labels of theirs."""
    prompts = repeated(120)
    answers = 110 + torch.arange(120) % 10
    ids = prompts.clean.ids.clone()
    ids[:, 5] = answers
    conditions = {"concept": (answers % 2).double(), "concept_key": answers.double()}
    given = Promptset(Batch.of(ids), clusters=torch.arange(120), conditions=conditions)
    found = curves(DEPTH, given, lm, per_component=1)
    accuracy, control = (found[each].mean(dim=0) for each in ("accuracy", "control_accuracy"))
    assert float(torch.stack([accuracy, control])[:, :2].max()) < 0.7
    assert float(torch.stack([accuracy, control])[:, 2].min()) > 0.9
    assert torch.equal(found["selectivity"], found["accuracy"] - found["control_accuracy"])
    assert set(found["accuracy"].flatten().tolist()) <= {0.0, 0.5, 1.0}


def test_a_concept_that_the_embedding_holds_is_read_off_every_layer(lm) -> None:
    prompts = repeated(120)
    last = prompts.clean.ids[:, -1]
    ids = prompts.clean.ids.clone()
    ids[:, -1] = 101 + last % 2
    conditions = {"concept": (last % 2).double(), "concept_key": torch.arange(120.0).double()}
    found = curves(DEPTH, Promptset(Batch.of(ids), conditions=conditions), lm, n_folds=3, per_component=1)
    assert bool((found["accuracy"].mean(dim=0) > 0.99).all())
    assert bool((found["auc"].mean(dim=0) > 0.99).all())
    assert float((found["shuffled_accuracy"].mean(dim=0) - 0.5).abs().max()) < 0.2


def test_prompts_without_a_concept_are_refused(lm) -> None:
    with pytest.raises(NotApplicable, match="the condition 'is_old', and there is none"):
        measure(DEPTH, {"concept": "is_old"}, repeated(20), lm=lm)
    with pytest.raises(BadInput, match="n_folds is 1"):
        measure(DEPTH, {"n_folds": 1}, repeated(20), lm=lm)
