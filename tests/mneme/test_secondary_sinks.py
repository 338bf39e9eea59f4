"""Tokens that follow the first one for some layers: planted in noise, with their starts and lifetimes."""

import torch

from mneme.secondary_sinks import classes, follows, sink_span, starts_and_lifetimes

LAYERS, TOKENS, WIDTH = 24, 12, 128


def planted():
    """Noise in which the first token is large in layers 4 .. 20, and token 7 is a fifth of it in layers 10 .. 17."""
    states = torch.randn(1, LAYERS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    states[0, 4:21, 0] *= 100
    states[0, 10:18, 7] = 0.2 * states[0, 10:18, 0]
    return states


def test_the_planted_token_starts_at_layer_ten_and_lasts_eight_layers():
    first = torch.zeros(1, dtype=torch.int64)
    found = follows(planted(), first, torch.ones(1, TOKENS), 0.9)
    start, lifetime = starts_and_lifetimes(found)
    assert start.tolist() == [[-1] * 7 + [10] + [-1] * 4]
    assert lifetime.tolist() == [[0] * 7 + [8] + [0] * 4]


def test_a_token_that_points_the_other_way_is_a_sink_too():
    states = planted()
    states[0, 10:18, 7] *= -1
    found = follows(states, torch.zeros(1, dtype=torch.int64), torch.ones(1, TOKENS), 0.9)
    assert int(found.sum()) == 8


def test_outside_the_span_of_the_large_norm_nothing_is_a_sink():
    states = planted()
    states[0, :4, 3] = states[0, :4, 0]
    states[0, 21:, 3] = states[0, 21:, 0]
    first = torch.zeros(1, dtype=torch.int64)
    assert int(follows(states, first, torch.ones(1, TOKENS), 0.9)[0, :, 3].sum()) == 0


def test_padding_and_the_leader_itself_never_count():
    states = planted()
    leader = torch.tensor([7])
    found = follows(states, leader, torch.tensor([[1] * 8 + [0] * 4]), 0.0)
    assert not bool(found[:, :, [0, 7, 8, 9, 10, 11]].any())
    assert bool(found[:, 4:21, 1:7].all())


def test_the_span_goes_from_the_largest_rise_to_the_largest_later_fall():
    norms = torch.tensor([[1.0, 2, 90, 91, 80, 5, 4], [9.0, 1, 2, 30, 31, 32, 33], [1.0, 50, 2, 60, 61, 40, 39]])
    first, last = sink_span(norms)
    assert first.tolist() == [2, 3, 3]
    assert last.tolist() == [4, 6, 4]


def test_lifetimes_are_classed_by_their_share_of_the_layers():
    found = classes(torch.tensor([[0, 4, 5, 24, 25, 40]]), 40, primary=0.625, noise=0.1)
    assert found["noise"].tolist() == [[False, True, False, False, False, False]]
    assert found["secondary"].tolist() == [[False, False, True, True, False, False]]
    assert found["primary_like"].tolist() == [[False, False, False, False, True, True]]
