"""The example of the docs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.architectures import tiny

PAGE = Path(__file__).parents[2] / "docs" / "interventions.md"


def test_the_interventions_of_the_docs_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny("qwen2").save_pretrained(tmp_path / "model")
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, object] = {}
    exec(code.group(1).replace("path/to/model", str(tmp_path / "model")), names)
    patched = names["patched"]
    assert isinstance(patched, torch.Tensor)
    assert patched.shape == (2, 3, 4)
    assert "tensor" in capsys.readouterr().out
