"""The hand-set head of METHODS 18: it looks one back on trigger rows, elsewhere at a first token of value 0."""

import math

import pytest
import torch

from mneme.toys.backcopy import Backcopy, backcopy_of, backcopy_of_prose, excess_losses, resting_head

TABLE = torch.tensor(
    [
        [0.0, 0.5, 0.2, 0.2, 0.1],
        [0.3, 0.0, 0.3, 0.2, 0.2],
        [0.2, 0.2, 0.1, 0.1, 0.4],
        [0.1, 0.1, 0.1, 0.6, 0.1],
        [0.25, 0.25, 0.25, 0.05, 0.2],
    ],
    dtype=torch.float64,
)
START = torch.tensor([0.0, 0.0, 0.5, 0.25, 0.25], dtype=torch.float64)
PROCESS = Backcopy("abcde", TABLE, torch.tensor([0, 1]), START)
BIG = 1e4


def rows(n_rows=200, length=30, has_first=True):
    return PROCESS.draw(n_rows, length, torch.Generator().manual_seed(0), has_first=has_first)


def hand_set(ids):
    """Attention [1 item 1 query key] and values [1 item 1 key width]: one dimension per token, none for the first."""
    n_rows, length = ids.shape
    attention = torch.zeros(n_rows, length, length, dtype=torch.float64)
    queries = torch.arange(length)
    looks_at = torch.where(PROCESS.is_trigger(ids), queries - 1, 0)
    attention.scatter_(2, looks_at[..., None], 1.0)
    values = torch.nn.functional.one_hot(ids, 6).double()
    values[:, 0] = 0.0
    return attention[None, :, None], values[None, :, None]


def hand_set_logits(ids, attention, values, *, is_zeroed=False):
    """The table's logarithms, and far above them what the head brings."""
    table = torch.cat([TABLE, torch.zeros(5, 1)], dim=1).log().clamp(min=-BIG)
    table = torch.cat([table, torch.zeros(1, 6)])
    brought = (attention[0, :, 0] @ values[0, :, 0]) * (0.0 if is_zeroed else 2 * BIG)
    return table[ids] + brought


def test_every_row_follows_the_table_or_copies_back():
    ids = rows()
    assert (ids[:, 0] == PROCESS.first_id).all()
    for row in ids.tolist():
        for place in range(2, len(row)):
            if row[place - 1] in (0, 1):
                assert row[place] == row[place - 2]
                assert row[place - 2] not in (0, 1, PROCESS.first_id)
            else:
                assert TABLE[row[place - 1], row[place]] > 0
    assert (rows(has_first=False) < PROCESS.first_id).all()


def test_characters_are_drawn_with_the_tables_probabilities():
    ids = rows(4000, 20)
    last, following = ids[:, 1:-1].flatten(), ids[:, 2:].flatten()
    for character in (2, 3, 4):
        drawn = following[last == character]
        shares = torch.bincount(drawn, minlength=5).double() / len(drawn)
        assert torch.allclose(shares, TABLE[character], atol=0.02)


def test_the_hand_set_head_loses_nothing_and_rests_on_the_first_token():
    ids = rows()
    attention, values = hand_set(ids)
    losses = excess_losses(PROCESS, ids, hand_set_logits(ids, attention, values))
    assert losses["excess_loss_trigger"].nanmean().item() == pytest.approx(0.0, abs=1e-9)
    assert losses["excess_loss_other"].nanmean().item() == pytest.approx(0.0, abs=1e-9)
    rests = {name: float(each.nanmean()) for name, each in resting_head(PROCESS, ids, attention, values).items()}
    assert rests["to_first_other"] == rests["share_to_first_other"] == 1.0
    assert rests["to_first_trigger"] == rests["share_to_first_trigger"] == 0.0
    assert rests["to_previous_trigger"] == 1.0
    assert rests["value_ratio"] == 0.0
    assert rests["sink_score"] == 1.0


def test_without_the_head_only_trigger_rows_lose_by_the_bigram_loss_of_what_they_copy():
    ids = rows()
    attention, values = hand_set(ids)
    losses = excess_losses(PROCESS, ids, hand_set_logits(ids, attention, values, is_zeroed=True))
    assert losses["excess_loss_other"].nanmean().item() == pytest.approx(0.0, abs=1e-9)
    for row, found in zip(ids.tolist(), losses["excess_loss_trigger"].tolist(), strict=True):
        places = [place for place in range(1, len(row) - 1) if row[place] in (0, 1)]
        bigram = [-TABLE[row[place], row[place - 1]].log().item() for place in places]
        if places:
            assert found == pytest.approx(sum(bigram) / len(bigram))
        else:
            assert math.isnan(found)


def test_the_excess_on_other_rows_is_the_divergence_of_the_guess_from_the_table():
    ids = torch.tensor([[5, 2, 3, 4, 2]])
    uniform = torch.zeros(1, 5, 6, dtype=torch.float64)
    uniform[..., 5] = -torch.inf
    entropies = [-(TABLE[each] * TABLE[each].log()).sum() for each in (2, 3, 4)]
    expected = torch.log(torch.tensor(5.0, dtype=torch.float64)) - torch.stack(entropies).mean()
    assert excess_losses(PROCESS, ids, uniform)["excess_loss_other"].item() == pytest.approx(expected.item())


def test_uniform_attention_over_many_tokens_is_no_sink():
    ids = rows(4, 64)
    uniform = torch.tril(torch.ones(64, 64, dtype=torch.float64)) / torch.arange(1, 65)[:, None]
    attention = uniform.expand(1, 4, 1, 64, 64)
    rests = resting_head(PROCESS, ids, attention, torch.ones(1, 4, 1, 64, 3))
    assert (rests["sink_score"] == 0).all()
    assert (rests["value_ratio"] == 1).all()
    short = resting_head(PROCESS, ids[:, :4], attention[..., :4, :4], torch.ones(1, 4, 1, 4, 3))
    assert (short["sink_score"] == 1).all()


def test_the_process_of_a_text_counts_pairs_and_leaves_rare_characters_out():
    found = backcopy_of("ab" * 30 + "z" + "ca" * 25)
    assert found.characters == "abc"
    assert found.triggers.tolist() == [0, 1, 2]
    assert torch.allclose(found.table.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert found.table[0].tolist() == pytest.approx([0.0, 30 / 54, 24 / 54])


def test_the_process_of_our_prose_starts_with_no_trigger_and_its_rows_are_probabilities():
    process = backcopy_of_prose()
    assert {process.characters[each] for each in process.triggers.tolist()} >= {" ", "e"}
    assert float(process.start[process.triggers].sum()) == 0.0
    assert torch.allclose(process.table.sum(dim=1), torch.ones(len(process.characters), dtype=torch.float64))
