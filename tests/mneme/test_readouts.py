"""Readouts and scores say what full logits say."""

from __future__ import annotations

import pytest
import torch

from mneme import batching, unembedding
from mneme.batch import Batch
from mneme.batching import in_batches, items_per_forward
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.readouts import (
    Readout,
    ReadRows,
    answer_probability,
    as_readout,
    log_probability,
    logit_difference,
    read_hidden,
    take_rows,
)
from mneme.scoring import answer_scores, token_scores
from tests import references
from tests.architectures import tiny

LM = LanguageModel(tiny("gemma2"), "gemma2", None, "cpu")
BATCH = Batch(torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.tensor([9, 6, 8]))
LOGITS = LM.logits(BATCH)
LAST = LOGITS[torch.arange(3), BATCH.lengths - 1]


def found(readout: Readout) -> torch.Tensor:
    where = ReadRows.of(readout, BATCH)
    items = torch.arange(3)
    return read_hidden(LM, readout, take_rows(LM.backbone.hidden(BATCH.ids), items, where), items, where)


def test_a_logit_difference_reads_two_columns_of_the_last_real_position() -> None:
    correct, wrong = torch.tensor([3, 4, 5]), torch.tensor([7, 8, 9])
    expected = LAST[torch.arange(3), correct] - LAST[torch.arange(3), wrong]
    readout = logit_difference(correct, wrong)
    assert torch.allclose(found(readout), expected, atol=1e-5)
    assert torch.allclose(readout(LAST), expected, atol=1e-5)
    assert readout.columns is not None
    assert readout.columns.tolist() == [[3, 7], [4, 8], [5, 9]]


def test_several_answers_are_averaged_and_minus_one_is_none() -> None:
    correct, wrong = torch.tensor([[3, 4], [4, -1], [5, 6]]), torch.tensor([[7], [8], [9]])
    expected = torch.stack([LAST[0, [3, 4]].mean(), LAST[1, 4], LAST[2, [5, 6]].mean()])
    expected = expected - LAST[torch.arange(3), wrong[:, 0]]
    assert torch.allclose(found(logit_difference(correct, wrong)), expected, atol=1e-5)


def test_probabilities_of_answers_add_up() -> None:
    correct = torch.tensor([[3, 4], [4, -1], [5, 6]])
    chances = torch.softmax(LAST, dim=1)
    expected = torch.stack([chances[0, [3, 4]].sum(), chances[1, 4], chances[2, [5, 6]].sum()])
    assert torch.allclose(found(answer_probability(correct)), expected, atol=1e-6)


def test_log_probability_is_the_mean_over_masked_positions() -> None:
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, [1, 7]], mask[1, 2:5], mask[2, 0] = True, True, True
    readout = log_probability(BATCH, mask)
    assert torch.allclose(found(readout), references.read(readout, LOGITS, BATCH), atol=1e-5)
    chances = torch.log_softmax(LOGITS, dim=-1)
    assert float(found(readout)[2]) == pytest.approx(float(chances[2, 0, BATCH.ids[2, 1]]), abs=1e-5)


def test_any_function_of_last_logits_is_a_readout() -> None:
    readout = as_readout(lambda logits: logits[:, 3] * 2)
    assert torch.allclose(found(readout), LAST[:, 3] * 2, atol=1e-5)


def test_bad_readouts_are_refused() -> None:
    with pytest.raises(BadInput, match="at least one id per prompt"):
        logit_difference(torch.tensor([[3], [-1]]), torch.tensor([[3], [4]]))
    with pytest.raises(BadInput, match="3 correct but 2 wrong"):
        logit_difference(torch.tensor([3, 4, 5]), torch.tensor([3, 4]))
    with pytest.raises(BadInput, match="mask must name at least one position"):
        log_probability(BATCH, torch.arange(9)[None] == torch.tensor([8, 2, 2])[:, None])
    with pytest.raises(BadInput, match="like the ids"):
        log_probability(BATCH, torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(BadInput, match="NaN or infinity"):
        found(as_readout(lambda logits: logits[:, 3] / 0.0 * 0.0))
    with pytest.raises(BadInput, match="reads several positions"):
        log_probability(BATCH, torch.arange(9)[None].expand(3, -1) == 1)(LAST)


def test_token_scores_are_those_of_full_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    chances = torch.log_softmax(LOGITS, dim=-1)
    monkeypatch.setattr(unembedding, "CHUNK_ELEMENTS", 100)
    scores = token_scores(LM, BATCH)
    for item in range(3):
        for position in range(9):
            value, hit = scores.log_prob[item, position], scores.is_top1[item, position]
            if position >= int(BATCH.lengths[item]) - 1:
                assert value.isnan()
                assert hit.isnan()
            else:
                token = BATCH.ids[item, position + 1]
                assert float(value) == pytest.approx(float(chances[item, position, token]), abs=1e-5)
                assert bool(hit) == bool(LOGITS[item, position].argmax() == token)


def test_a_tie_is_no_hit() -> None:
    hf = tiny("gpt2")
    hf.transformer.wte.weight.zero_()
    scores = token_scores(LanguageModel(hf, "flat", None, "cpu"), BATCH)
    assert float(scores.is_top1.nansum()) == 0


def test_answer_scores_are_logits_at_the_last_real_position() -> None:
    correct, wrong = torch.tensor([[3, 4], [4, -1], [5, 6]]), torch.tensor([[7], [8], [-1]])
    scores = answer_scores(LM, BATCH, correct, wrong)
    assert torch.allclose(scores.correct[0], LAST[0, [3, 4]], atol=1e-5)
    assert bool(scores.correct[1, 1].isnan())
    assert bool(scores.wrong[2, 0].isnan())
    assert scores.top_id.tolist() == LAST.argmax(dim=1).tolist()
    assert scores.n_top.tolist() == [1, 1, 1]
    assert torch.allclose(scores.log_normaliser, torch.logsumexp(LAST, dim=1), atol=1e-5)
    with pytest.raises(BadInput, match="correct answers must be ids"):
        answer_scores(LM, BATCH, torch.tensor([[99], [1], [1]]))


def test_batches_follow_shapes_and_halve_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    lm = LanguageModel(tiny("gpt2"), "gpt2", None, "cpu")
    assert items_per_forward(lm, 8) == batching.CPU_ELEMENTS // (12 * 8 * 16)
    lm.items_per_forward[8] = 8
    tried: list[int] = []

    def run(items: slice) -> torch.Tensor:
        tried.append(items.stop - items.start)
        if items.stop - items.start > 2:
            raise torch.OutOfMemoryError("out of memory")
        return torch.arange(items.start, items.stop)

    assert in_batches(lm, 10, 8, run).tolist() == list(range(10))
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert lm.items_per_forward[8] == 2
    assert "going on with half" in caplog.text


def test_other_errors_are_not_taken_for_memory() -> None:
    def run(items: slice) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_batches(LM, 4, 8, run)
