import pytest
import torch

from mneme.curve import Curve, curve_of_arrays, curves_to_arrays
from mneme.errors import BadInput


def axis(*places):
    return torch.tensor(places, dtype=torch.float64)


def test_curves_come_back_from_flat_arrays_as_they_went_in():
    rank = Curve(axis(0, 1, 2), torch.tensor([[3.0, 2.0, 1.0], [9.0, torch.nan, 1.0]]))
    share = Curve(axis(0.5), torch.ones(2, 1, dtype=torch.float64))
    arrays = curves_to_arrays({"rank": rank, "share": share})
    assert list(arrays) == ["curve.rank.x", "curve.rank.values", "curve.share.x", "curve.share.values"]
    for measure, curve in (("rank", rank), ("share", share)):
        found = curve_of_arrays(arrays, measure)
        assert torch.equal(found.x, curve.x)
        assert torch.equal(found.values.nan_to_num(-9), curve.values.nan_to_num(-9))


def test_curves_over_one_axis_do_not_share_its_memory():
    x, values = axis(0, 1), torch.ones(3, 2)
    arrays = curves_to_arrays({"rank": Curve(x, values), "share": Curve(x, values)})
    assert len({each.data_ptr() for each in (*arrays.values(), x, values)}) == 6


@pytest.mark.parametrize(
    ("x", "values", "words"),
    [
        (torch.arange(3), torch.ones(2, 3), "float64"),
        (axis(0, float("nan"), 1), torch.ones(2, 3), "finite"),
        (axis(0, float("inf"), 1), torch.ones(2, 3), "finite"),
        (axis(0, 1, 1), torch.ones(2, 3), "once"),
        (axis(), torch.ones(2, 0), "once"),
        (axis(0, 1)[None], torch.ones(2, 2), r"\[point\]"),
        (axis(0, 1), torch.ones(2, 3), "2 points"),
        (axis(0, 1), torch.ones(2), "2 points"),
    ],
)
def test_what_is_no_axis_and_what_does_not_lie_along_it_is_refused(x, values, words):
    with pytest.raises(BadInput, match=words):
        Curve(x, values)
