"""Loads a stock Hugging Face causal language model behind the parity gate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import mneme.bigram
import mneme.lstm
import mneme.sigmoid_attention  # noqa: F401  all make model classes of ours known to transformers
from mneme.batch import Batch
from mneme.context import exact_context
from mneme.devices import check_device
from mneme.errors import BadInput, NotApplicable
from mneme.hub import fetch
from mneme.parity import Parity, Seen, run_gate
from mneme.registry import near_names
from mneme.structure import Structure, find_structure
from mneme.unembedding import Backbone
from mneme.weights import TOKENIZER_FILES, FolderFacts, read_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class LanguageModel:
    """A stock transformers model (`hf`) with the facts that the engine needs.

    n_layers, d_model, vocab_size, context (`exact_context`; None = no limit stated); n_heads, n_kv_heads, head_width
    (of Z) and windows (per layer, tokens or None) where every layer goes through the attention interface, else
    NotApplicable.
    forwards counts the calls of the stock model since it was loaded; items_per_forward says, by prompt length, how
    many prompts go through one (see `batching`); structure is where the parts of a layer lie; parity is what the gate
    measured. Padding needs no attention mask: it lies to the right, where a causal model does not look.
    Raises: BadInput for quantised weights and a model in training mode.
    """

    def __init__(self, hf: PreTrainedModel, name: str, folder: Path | None, device: str) -> None:
        _check_floating(name, hf)
        _check_eval(name, hf)
        config = hf.config.get_text_config()
        if hf.dtype == torch.float64:
            hf.set_experts_implementation("eager")  # grouped matrix products know no float64
        self.hf = hf
        self.name = name
        self.folder = folder
        self.device = device
        self.dtype: torch.dtype = hf.dtype
        self.n_layers = int(config.num_hidden_layers)
        self.d_model = int(config.hidden_size)
        self.vocab_size = int(config.vocab_size)
        self.context = exact_context(config)
        self.forwards = 0
        self.items_per_forward: dict[int, int] = {}
        self.parity: Parity
        self.backbone: Backbone
        self.parity, self._seen, self.backbone = run_gate(hf, self.context)
        self.structure: Structure | None = None
        if self.attention:
            self.structure = find_structure(hf, self.backbone, self._seen.modules)
        self.backbone.module.register_forward_pre_hook(self._count)

    @property
    def attention(self) -> bool:
        """Whether every layer goes through the attention interface once: whether head methods apply."""
        return self._seen.unreadable is None and self._is_complete

    def require_attention(self) -> Seen:
        """What the gate saw of the attention layers; raises NotApplicable where head methods do not apply."""
        if self._seen.unreadable is not None:
            raise NotApplicable(f"{self.name}: {self._seen.unreadable}")
        if not self._is_complete:
            raise NotApplicable(
                f"{self.name} ({type(self.hf).__name__}) sends {len(self._seen.modules)} of its {self.n_layers} layers "
                "through the attention interface of transformers: only behavior probes apply to it"
            )
        return self._seen

    @property
    def n_heads(self) -> int:
        """Query heads per layer."""
        return self._head_shape[0]

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads per layer, as they enter attention."""
        return self._head_shape[1]

    @property
    def head_width(self) -> int:
        """Width of one head's output Z."""
        return self._head_shape[2]

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Sliding window of each layer in tokens, None where it sees the whole context."""
        seen = self.require_attention()
        return tuple(seen.windows[layer] for layer in range(self.n_layers))

    @property
    def attention_modules(self) -> list[nn.Module]:
        """The attention module of each layer."""
        seen = self.require_attention()
        return [seen.modules[layer] for layer in range(self.n_layers)]

    @property
    def runs_packed(self) -> bool:
        """Whether prompts may run behind each other in one row (see `Structure`)."""
        return self.structure is not None and self.structure.runs_packed

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer, None when it has none."""
        if self.folder is None or not any((self.folder / name).is_file() for name in TOKENIZER_FILES):
            return None
        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)

    def batch(self, ids: Tensor | Batch) -> Batch:
        """Ids as a checked batch on the model's device.

        Raises: BadInput when an id is not in the vocabulary, a prompt exceeds the context, or the model is training.
        """
        batch = Batch.of(ids)
        _check_eval(self.name, self.hf)
        if int(batch.ids.min()) < 0 or int(batch.ids.max()) >= self.vocab_size:
            raise BadInput(f"token ids must lie in 0..{self.vocab_size - 1}, the vocabulary of {self.name}")
        if self.context is not None and batch.ids.shape[1] > self.context:
            raise BadInput(
                f"prompts of {batch.ids.shape[1]} tokens exceed the {self.context} of {self.name}{self._why_shorter}: "
                "shorten them"
            )
        labels = {name: positions.to(self.device) for name, positions in batch.labels.items()}
        return Batch(batch.ids.to(self.device), batch.lengths.to(self.device), labels)

    def logits(self, ids: Tensor | Batch) -> Tensor:
        """Stock logits of every position: [item position vocab]; mind the memory of long prompts."""
        with torch.no_grad():
            return torch.as_tensor(self.hf(input_ids=self.batch(ids).ids, use_cache=False).logits)

    @property
    def _why_shorter(self) -> str:
        stated = getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)
        if stated == self.context:
            return ""
        return f", beyond which its rotary frequencies follow from the length of the text (its config states {stated})"

    def _count(self, *_: object) -> None:
        self.forwards += 1

    @property
    def _is_complete(self) -> bool:
        seen = self._seen
        return sorted(seen.modules) == list(range(self.n_layers)) == list(range(seen.calls))

    @property
    def _head_shape(self) -> tuple[int, int, int]:
        shapes = set(self.require_attention().shapes.values())
        if len(shapes) > 1:
            raise NotApplicable(
                f"{self.name} has layers with different heads {sorted(shapes)}: head methods need alike"
            )
        return shapes.pop()


def load_model(
    path_or_id: str | Path, revision: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> LanguageModel:
    """A local `save_pretrained` folder or a hub id as a LanguageModel, in eval mode, without gradients.

    revision: branch, tag or commit of a hub id. dtype: float32, bfloat16, float16, float64. device: cpu, cuda, mps.
    Raises: BadInput for what `read_folder` and `fetch` refuse, an unknown dtype or device, weights that are not
    finite or not complete; ParityError when our attention function does not reproduce the stock logits.
    """
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype '{dtype}'" + near_names(dtype, list(DTYPES)))
    check_device(device)
    folder = Path(path_or_id)
    if not folder.exists() and _looks_like_a_hub_id(str(path_or_id)):
        folder = fetch(str(path_or_id), revision).folder
    elif revision is not None:
        raise BadInput(f"{path_or_id} is a folder, which has no revision '{revision}': leave the revision out")
    facts = read_folder(folder)
    hf = _load(facts, DTYPES[dtype]).to(device).eval().requires_grad_(False)
    _check_finite(folder, hf)
    return LanguageModel(hf, str(path_or_id), folder, device)


def _load(facts: FolderFacts, dtype: torch.dtype) -> PreTrainedModel:
    folder = facts.folder
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        hf, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # _check_complete refuses them by name
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        line = str(error).strip().split("\n")[0]
        raise BadInput(f"{folder} cannot be loaded as a {facts.architecture} ({line}): save the model again") from error
    _check_complete(folder, report)
    return hf


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    lacking = sorted(str(name) for name in report.get("missing_keys", ()))
    if lacking:
        raise BadInput(
            f"{folder} lacks the weights {', '.join(lacking[:3])}, which would be random: save the model again"
        )
    for name, stored, wanted in report.get("mismatched_keys", ()):
        raise BadInput(
            f"{folder} holds {name} as {list(stored)} where its config.json says {list(wanted)}: save the model again"
        )


def _check_finite(folder: Path, hf: PreTrainedModel) -> None:
    for name, weights in hf.named_parameters():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise BadInput(
                f"the weights {name} in {folder} hold NaN or infinity: train or save the model again, or load it as "
                "float32"
            )


def _check_floating(name: str, hf: PreTrainedModel) -> None:
    for part, weights in hf.named_parameters():
        if weights.dtype not in DTYPES.values():
            raise BadInput(
                f"{name} holds quantised weights ({part} is {weights.dtype}), which have no gradients: load the model "
                "in float32, bfloat16 or float16"
            )


def _check_eval(name: str, hf: PreTrainedModel) -> None:
    """Refuse a model that is in training mode, or a part of which is."""
    part = next((part for part, module in hf.named_modules() if module.training), None)
    if part is not None:
        what = f"{name}, {part}," if part else name
        raise BadInput(f"{what} is in training mode, where dropout is on: call eval() on the model first")


def _looks_like_a_hub_id(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1
