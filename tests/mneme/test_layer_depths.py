import pytest

from mneme.layer_depths import converged_layer, jump_layer

KNOWN = (0.50, 0.50, 0.60, 0.80, 0.81, 0.82)  # METHODS 17: ratios 1, 1.2, 1.333, 1.0125, 1.0123


def test_the_jump_is_the_first_layer_a_tenth_above_the_one_before():
    assert jump_layer(KNOWN) == 2
    assert jump_layer((0.5, 0.54, 0.58)) is None
    assert jump_layer((0.5, 0.6, 0.5, 0.6)) == 1


def test_it_has_converged_where_all_later_steps_are_small():
    assert converged_layer(KNOWN) == 4
    assert converged_layer((0.7, 0.7, 0.7)) == 1
    assert converged_layer((0.5, 0.5, 0.9)) is None


@pytest.mark.parametrize("within", [0.2, 0.4])
def test_the_thresholds_may_be_others(within):
    assert converged_layer(KNOWN, within) == {0.2: 4, 0.4: 1}[within]
    assert jump_layer(KNOWN, 1.3) == 3
