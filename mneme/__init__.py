"""Mneme: how language models retrieve from their context, and which attention heads do it.

The names below are imported when they are first used, so that `import mneme` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mneme.ablation import ablate_head_sets as ablate_head_sets
    from mneme.ablation import ablate_heads as ablate_heads
    from mneme.attention import AttentionInputs as AttentionInputs
    from mneme.attribution import direct_logit_attribution as direct_logit_attribution
    from mneme.batch import Batch as Batch
    from mneme.capturing import Site as Site
    from mneme.capturing import Trace as Trace
    from mneme.capturing import capture as capture
    from mneme.capturing import stream_attention as stream_attention
    from mneme.circuit_faithfulness import faithfulness as faithfulness
    from mneme.circuits import find_circuit as find_circuit
    from mneme.copying import copying_scores as copying_scores
    from mneme.edge_checks import check_edges as check_edges
    from mneme.edge_scoring import edge_scores as edge_scores
    from mneme.errors import BadInput as BadInput
    from mneme.errors import MnemeError as MnemeError
    from mneme.errors import NotApplicable as NotApplicable
    from mneme.errors import ParityError as ParityError
    from mneme.layer_depths import converged_layer as converged_layer
    from mneme.layer_depths import jump_layer as jump_layer
    from mneme.lenses import logit_lens as logit_lens
    from mneme.measuring import head_scores as head_scores
    from mneme.model import LanguageModel as LanguageModel
    from mneme.model import load_model as load_model
    from mneme.patching import patch as patch
    from mneme.patching import patch_head_sets as patch_head_sets
    from mneme.patching import patch_heads as patch_heads
    from mneme.paths import path_patch as path_patch
    from mneme.promptset import Promptset as Promptset
    from mneme.readouts import Readout as Readout
    from mneme.readouts import answer_probability as answer_probability
    from mneme.readouts import log_probability as log_probability
    from mneme.readouts import logit_difference as logit_difference
    from mneme.scores import AnswerScores as AnswerScores
    from mneme.scores import TokenScores as TokenScores
    from mneme.scoring import answer_scores as answer_scores
    from mneme.scoring import token_scores as token_scores
    from mneme.weights import read_folder as read_folder

_MODULES = {
    "ablation": ("ablate_head_sets", "ablate_heads"),
    "attention": ("AttentionInputs",),
    "attribution": ("direct_logit_attribution",),
    "batch": ("Batch",),
    "capturing": ("Site", "Trace", "capture", "stream_attention"),
    "circuit_faithfulness": ("faithfulness",),
    "circuits": ("find_circuit",),
    "copying": ("copying_scores",),
    "edge_checks": ("check_edges",),
    "edge_scoring": ("edge_scores",),
    "errors": ("BadInput", "MnemeError", "NotApplicable", "ParityError"),
    "measuring": ("head_scores",),
    "layer_depths": ("converged_layer", "jump_layer"),
    "lenses": ("logit_lens",),
    "model": ("LanguageModel", "load_model"),
    "patching": ("patch", "patch_head_sets", "patch_heads"),
    "paths": ("path_patch",),
    "promptset": ("Promptset",),
    "readouts": ("Readout", "answer_probability", "log_probability", "logit_difference"),
    "scores": ("AnswerScores", "TokenScores"),
    "scoring": ("answer_scores", "token_scores"),
    "weights": ("read_folder",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  read from the table above


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mneme' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mneme.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
