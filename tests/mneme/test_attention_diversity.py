import math

import pytest
import torch

from mneme.attention_diversity import entropy_spread, head_cosine
from mneme.errors import BadInput

UNIFORM = torch.tril(torch.ones(4, 4, dtype=torch.float64)) / torch.arange(1, 5, dtype=torch.float64)[:, None]
IDENTITY = torch.eye(4, dtype=torch.float64)


def heads(*patterns):
    """One layer, three items that are alike: [1 item head query key]."""
    return torch.stack(patterns)[None, None].expand(1, 3, -1, -1, -1)


def test_heads_that_are_the_same_have_cosine_one_and_no_spread():
    same = heads(UNIFORM, UNIFORM, UNIFORM)
    assert head_cosine(same).tolist() == pytest.approx([1.0])
    assert entropy_spread(same).tolist() == pytest.approx([0.0])


def test_uniform_against_identity_is_the_root_of_the_mean_harmonic_number():
    both = heads(UNIFORM, IDENTITY)
    harmonic = sum(1 / each for each in range(1, 5))
    assert head_cosine(both).item() == pytest.approx(math.sqrt(harmonic / 4)) == pytest.approx(0.7217, abs=5e-5)
    entropy = sum(math.log(each) for each in range(1, 5)) / 4
    assert entropy == pytest.approx(0.7945, abs=5e-5)
    assert entropy_spread(both).item() == pytest.approx(entropy / 2) == pytest.approx(0.3973, abs=5e-5)


def test_heads_without_a_common_key_have_cosine_zero():
    first = torch.zeros(4, 4, dtype=torch.float64)
    first[:, 0] = 1.0
    last = torch.eye(4, dtype=torch.float64)
    last[0] = 0.0
    assert head_cosine(heads(first, last)).item() == 0.0


def test_layers_are_measured_one_by_one():
    both = torch.cat([heads(UNIFORM, UNIFORM), heads(UNIFORM, IDENTITY)])
    assert head_cosine(both).tolist() == pytest.approx([1.0, 0.7217], abs=5e-5)
    assert entropy_spread(both).tolist() == pytest.approx([0.0, 0.3973], abs=5e-5)


def test_the_cosine_is_that_of_each_pair_written_out():
    attention = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for layer, found in enumerate(head_cosine(attention).tolist()):
        flat = [attention[layer, :, head].flatten() for head in range(3)]
        pairs = [torch.cosine_similarity(flat[a], flat[b], dim=0).item() for a, b in ((0, 1), (0, 2), (1, 2))]
        assert found == pytest.approx(sum(pairs) / 3)


@pytest.mark.parametrize("measure", [head_cosine, entropy_spread])
def test_one_head_is_refused(measure):
    with pytest.raises(BadInput, match="at least two heads"):
        measure(heads(UNIFORM))
