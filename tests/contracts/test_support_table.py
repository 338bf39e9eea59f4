"""The table of architectures says what the code does."""

from __future__ import annotations

from pathlib import Path

from tests.architectures import INSIDE
from tests.support_table import page

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tests.support_table > docs/architectures.md"


def test_at_least_22_architectures_are_inside_the_interface() -> None:
    assert len(INSIDE) >= 22
