"""The package's public names come on demand."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import mneme


def test_importing_mneme_imports_no_torch() -> None:
    program = "import sys, mneme; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", mneme.__all__)
def test_every_public_name_is_a_documented_function_or_class(name: str) -> None:
    found = getattr(mneme, name)
    assert not inspect.ismodule(found)
    assert inspect.getdoc(found)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode_model'"):
        _ = mneme.lode_model
