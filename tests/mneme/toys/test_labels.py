"""Contexts of the label task, and the two solvers of METHODS 16 whose accuracies are known."""

import pytest
import torch

from mneme.errors import BadInput
from mneme.toys.labels import (
    N_PAIRS,
    LabelTask,
    absent_contexts,
    best_head,
    induction_strength,
    label_credit,
    novel_contexts,
    previous_strength,
    swapped_contexts,
    training_contexts,
)

SIZES = {
    "n_classes": 64,
    "n_novel": 32,
    "n_exemplars": 3,
    "n_labels": 16,
    "p_burst": 1.0,
    "burstiness": 2,
    "alpha": 0.0,
    "noise": 0.5,
}
TASK = LabelTask(**SIZES)


def generator():
    return torch.Generator().manual_seed(0)


def induction_solver(contexts):
    """The label that follows items of the query's class; a guess that earns nothing where there is none."""
    match = (contexts.classes == contexts.query_class[:, None]).double()
    return torch.zeros(len(match), TASK.n_labels).double().scatter_add(1, contexts.labels, match)


def lookup_solver(contexts):
    """The label that a trained class always has; for any other class as well, which is a guess."""
    return torch.nn.functional.one_hot(contexts.query_class % TASK.n_labels, TASK.n_labels).double()


def accuracy(solver, contexts):
    return float(label_credit(solver(contexts), contexts.answer).mean())


def test_the_induction_solver_reads_and_knows_nothing():
    assert accuracy(induction_solver, novel_contexts(TASK, 500, generator())) == 1.0
    assert accuracy(induction_solver, swapped_contexts(TASK, 500, generator())) == 1.0
    assert accuracy(induction_solver, absent_contexts(TASK, 500, generator())) <= 1 / 16


def test_the_lookup_solver_knows_and_reads_nothing():
    assert accuracy(lookup_solver, absent_contexts(TASK, 500, generator())) == 1.0
    assert accuracy(lookup_solver, swapped_contexts(TASK, 500, generator())) == 0.0
    assert accuracy(lookup_solver, novel_contexts(TASK, 4000, generator())) == pytest.approx(1 / 16, abs=0.015)


def test_guessing_a_label_of_the_context_is_right_once_in_four():
    contexts = novel_contexts(TASK, 4000, generator())
    guessed = contexts.labels[torch.arange(4000), torch.randint(N_PAIRS, (4000,), generator=generator())]
    assert float((guessed == contexts.answer).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert all(len(set(row)) == 4 for row in contexts.labels.tolist())


def test_labels_say_what_the_prompt_shows():
    for contexts in (training_contexts(TASK, 50, generator()), novel_contexts(TASK, 50, generator())):
        assert contexts.ids.shape == (50, 2 * N_PAIRS + 2)
        assert (contexts.ids[:, 0] == TASK.first_id).all()
        assert torch.equal(contexts.ids[:, 1:-1:2] // TASK.n_exemplars, contexts.classes)
        assert torch.equal(contexts.ids[:, 2::2] - TASK.first_label, contexts.labels)
        assert torch.equal(contexts.ids[:, -1] // TASK.n_exemplars, contexts.query_class)


def test_novel_classes_are_never_trained():
    assert (training_contexts(TASK, 500, generator()).classes < TASK.n_classes).all()
    assert (novel_contexts(TASK, 500, generator()).classes >= TASK.n_classes).all()


def test_absent_classes_are_absent_and_swapped_labels_are_wrong_by_heart():
    absent = absent_contexts(TASK, 500, generator())
    assert not (absent.classes == absent.query_class[:, None]).any()
    swapped = swapped_contexts(TASK, 500, generator())
    assert not (swapped.answer == swapped.query_class % TASK.n_labels).any()


def test_bursts_show_the_querys_class_as_often_as_asked_and_none_leave_it_to_chance():
    bursty = training_contexts(TASK, 300, generator())
    assert (bursty.classes == bursty.query_class[:, None]).sum(dim=1).eq(2).all()
    plain = training_contexts(LabelTask(**{**SIZES, "burstiness": 0}), 4000, generator())
    shown = (plain.classes == plain.query_class[:, None]).sum(dim=1).double().mean()
    assert float(shown) == pytest.approx(N_PAIRS / 64, abs=0.03)


def test_frequencies_fall_with_the_rank():
    contexts = training_contexts(LabelTask(**{**SIZES, "burstiness": 0, "alpha": 1.0}), 4000, generator())
    counts = torch.bincount(contexts.query_class, minlength=64).double()
    assert float(counts[0] / counts[3]) == pytest.approx(4.0, rel=0.25)


def test_random_labels_say_nothing_of_the_class_but_the_query_keeps_its_own():
    contexts = training_contexts(TASK, 2000, generator(), has_random_labels=True)
    agree = (contexts.labels == contexts.classes % TASK.n_labels).double().mean()
    assert float(agree) == pytest.approx(1 / 16, abs=0.01)
    assert torch.equal(contexts.answer, contexts.query_class % TASK.n_labels)


def test_exemplars_lie_around_their_class_as_the_noise_says():
    vectors = LabelTask(**{**SIZES, "noise": 0.5, "n_classes": 400}).embeddings(128, generator())
    items = vectors[: 400 * 3].view(400, 3, 128)
    assert float((items[:, 0] * items[:, 1]).sum(dim=-1).mean()) == pytest.approx(1 / 1.25, abs=0.02)
    assert float((items[:-1, 0] * items[1:, 0]).sum(dim=-1).mean()) == pytest.approx(0.0, abs=0.02)
    assert float(vectors.norm(dim=-1).mean()) == pytest.approx(1.0, abs=0.02)


def test_uniform_attention_has_no_induction_strength_and_a_perfect_head_has_one():
    contexts = novel_contexts(TASK, 20, generator())
    length = contexts.ids.shape[1]
    uniform = torch.ones(1, 20, 1, length, length, dtype=torch.float64).tril()
    uniform = uniform / uniform.sum(dim=-1, keepdim=True)
    assert induction_strength(uniform, contexts).abs().max() < 1e-12
    match = (contexts.classes == contexts.query_class[:, None]).double() / 2
    perfect = torch.zeros_like(uniform)
    perfect[0, :, 0, -1, 2 : 2 * N_PAIRS + 1 : 2] = match
    assert torch.allclose(induction_strength(perfect, contexts), torch.ones(1, 20, 1, dtype=torch.float64))
    both = torch.cat([uniform, perfect], dim=2)
    assert best_head(induction_strength(both, contexts)).value == pytest.approx(1.0)


def test_a_head_that_looks_one_back_has_previous_token_strength_one():
    length = 2 * N_PAIRS + 2
    back = torch.diag(torch.ones(length - 1), -1).expand(1, 3, 1, length, length)
    assert torch.equal(previous_strength(back), torch.ones(1, 3, 1))
    uniform = (torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]).expand(1, 3, 1, -1, -1)
    expected = sum(1 / (place + 1) for place in range(2, 2 * N_PAIRS + 1, 2)) / N_PAIRS
    assert previous_strength(uniform)[0, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_a_tie_earns_nothing():
    scores = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    assert label_credit(scores, torch.tensor([0, 0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"burstiness": 3}, "does not divide"),
        ({"n_labels": 4}, "n_labels"),
        ({"n_novel": 2}, "n_novel"),
        ({"n_classes": 5}, "n_classes"),
        ({"p_burst": 2.0}, "p_burst"),
        ({"alpha": -1.0}, "alpha"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(changed, words):
    with pytest.raises(BadInput, match=words):
        LabelTask(**{**SIZES, **changed})
