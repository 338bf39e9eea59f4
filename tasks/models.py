"""The one model that a process holds in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from storage.home import Home
from tasks.materialise import model_folder
from tasks.stage import Value

if TYPE_CHECKING:
    from mneme.model import LanguageModel

_guard = threading.Lock()
_held: dict[tuple[str, str, str], LanguageModel] = {}


def loaded(home: Home, model: Value, dtype: str, device: str) -> LanguageModel:
    """The materialised model, loaded through the parity gate; loading another one lets go of the last."""
    from mneme.model import load_model

    name = (model["facts"]["weights_sha256"] + model["facts"]["config_sha256"], dtype, device)
    with _guard:
        if name not in _held:
            _held.clear()
            _held[name] = load_model(model_folder(home, model), dtype=dtype, device=device)
        return _held[name]


def batch_sizes(lm: LanguageModel) -> dict[str, int]:
    """How many prompts went through one forward, by prompt length in tokens, halvings for want of memory included."""
    return {str(n_tokens): n_items for n_tokens, n_items in sorted(lm.items_per_forward.items())}


def release() -> None:
    """Let go of the model."""
    with _guard:
        _held.clear()
