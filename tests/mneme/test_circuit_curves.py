"""CPR and CMD of curves whose areas are known."""

from __future__ import annotations

import pytest
import torch

from mneme.circuit_curves import FRACTIONS, circuit_curve, sizes_of
from mneme.errors import BadInput

P = torch.tensor(FRACTIONS, dtype=torch.float64)


@pytest.mark.parametrize(
    ("f", "cpr", "cmd"),
    [
        (torch.ones(10), 0.999, 0.0),
        (P, 0.4999995, 0.4990005),
        (torch.zeros(10), 0.0, 0.999),
        (2 * torch.ones(10), 1.998, 0.999),
    ],
    ids=["all kept", "in proportion", "nothing kept", "twice as much"],
)
def test_known_curves(f: torch.Tensor, cpr: float, cmd: float) -> None:
    found = circuit_curve(P, f)
    assert (found.cpr, found.cmd) == (pytest.approx(cpr, abs=1e-12), pytest.approx(cmd, abs=1e-12))


def test_sizes_are_fractions_of_the_edges_and_at_least_one() -> None:
    assert sizes_of(32_491) == [32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491]
    assert sizes_of(8)[:3] == [1, 1, 1]


@pytest.mark.parametrize("fractions", [[0.1, 0.1], [0.2, 0.1], [-0.1, 0.5], [0.5, 1.5]])
def test_fractions_that_do_not_grow_are_refused(fractions: list[float]) -> None:
    with pytest.raises(BadInput, match="must grow from circuit to circuit"):
        circuit_curve(torch.tensor(fractions), torch.zeros(2))


def test_curves_of_one_circuit_and_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadInput, match="at least two circuits"):
        circuit_curve(torch.tensor([0.5]), torch.zeros(1))
    with pytest.raises(BadInput, match="NaN or infinite"):
        circuit_curve(torch.tensor([0.5, 1.0]), torch.tensor([torch.nan, 1.0]))
