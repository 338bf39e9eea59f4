import pytest

from mneme.arguments import number_between, one_of, whole_number
from mneme.errors import BadInput


@pytest.mark.parametrize("value", [3, 4, 5])
def test_whole_numbers_within_bounds_pass(value):
    assert whole_number("here", value, 3, 5) == value


@pytest.mark.parametrize("value", [2, 6, 3.0, "4", True, None])
def test_anything_else_is_refused_with_the_place_and_the_bounds(value):
    with pytest.raises(BadInput, match=r"here is .* from 3 to 5"):
        whole_number("here", value, 3, 5)


@pytest.mark.parametrize("value", [-0.1, 0.5, "0.1", False])
def test_a_number_outside_its_half_open_interval_is_refused(value):
    assert number_between("here", 0, 0, 0.5) == 0.0
    with pytest.raises(BadInput, match=r"here is .* from 0 to below 0\.5"):
        number_between("here", value, 0, 0.5)


def test_a_choice_is_one_of_the_named_ones():
    assert one_of("here", "a", ("a", "b")) == "a"
    with pytest.raises(BadInput, match="choose one of a, b"):
        one_of("here", "c", ("a", "b"))
