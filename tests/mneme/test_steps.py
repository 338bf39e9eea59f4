import pytest

from mneme.errors import BadInput
from mneme.steps import kept_steps, log_spaced


def test_log_spaced_steps():
    assert log_spaced(1) == (0, 1)
    assert log_spaced(8) == (0, 1, 2, 4, 8)
    assert log_spaced(11) == (0, 1, 2, 4, 8, 11)
    assert kept_steps("keep", "log_spaced", 11) == log_spaced(11)
    assert kept_steps("keep", [7, 0, 7], 11) == (0, 7)


@pytest.mark.parametrize("keep", ["often", [-1], [12], [1.5], [True]])
def test_steps_that_cannot_be_kept_are_refused(keep):
    with pytest.raises(BadInput, match="keep"):
        kept_steps("some_recipe.keep", keep, 11)
