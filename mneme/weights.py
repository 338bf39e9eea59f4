"""Checks a local model folder without running it: what it holds, its hashes, and why it would be refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mneme.errors import BadInput

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "chat_template.jinja",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4,
}  # fmt: skip
FLOATING = ("F64", "F32", "F16", "BF16")  # what weights may be; narrower types are quantised
LONGEST_HEADER = 100_000_000  # bytes: the safetensors format's own limit
_UNQUANTISED = "Mneme needs gradients and the model's own digits, so save the model in float32, bfloat16 or float16"


@dataclass(frozen=True)
class FolderFacts:
    """What a model folder holds, read from its files alone.

    The hashes are hex sha256: `weights_sha256` over the names and contents of the safetensors files (and the index),
    `tokenizer_sha256` over the tokenizer's files (None when there is none), `config_sha256` over config.json.
    A size is None when config.json does not state it.
    """

    folder: Path
    architecture: str
    weights_sha256: str
    tokenizer_sha256: str | None
    config_sha256: str
    n_layers: int | None
    n_heads: int | None
    n_kv_heads: int | None
    head_width: int | None
    d_model: int | None
    vocab_size: int | None
    context: int | None


def read_folder(folder: str | Path) -> FolderFacts:
    """Facts of a local `save_pretrained` folder.

    Raises: BadInput, one sentence, for a missing folder or config, weights that are missing, pickled, truncated or
    corrupt, quantised weights, a model that is not a causal language model, code that the folder wants run, a link that
    leaves it, an adapter.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises on a name that is too long
        raise BadInput(f"model folder {str(folder)[:200]} does not exist: name a folder that save_pretrained wrote")
    _refuse_escaping_links(folder)
    _refuse_adapter(folder)
    config = read_config(folder)
    architecture = _causal_architecture(folder, config)
    files = weight_files(folder)
    _refuse_quantised(folder, config, files)
    return FolderFacts(
        folder=folder,
        architecture=architecture,
        weights_sha256=_hash_files(files if files == [folder / SINGLE] else [*files, folder / INDEX]),
        tokenizer_sha256=tokenizer_hash(folder),
        config_sha256=_hash_files([folder / "config.json"]),
        **_sizes(config),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a dict; raises BadInput when it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"{folder} has no config.json: name a folder that save_pretrained wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON ({str(error)[:100]}): save the model again") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} is not a JSON object: save the model again")
    return config


def tokenizer_hash(folder: Path) -> str | None:
    """Sha256 over the tokenizer's files, None when the folder has no tokenizer."""
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return _hash_files(files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, sorted by name; each is checked for truncation.

    Raises: BadInput when there is none, one that the index names is missing, or one is corrupt.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        check_safetensors(single)
        return [single]
    if not index.is_file():
        if any(any(folder.glob(pattern)) for pattern in PICKLES):
            raise BadInput(
                f"{folder} holds pickled weights only: load them yourself and save_pretrained as safetensors"
            )
        raise BadInput(f"{folder} holds no {SINGLE}: save_pretrained the model there")
    return _shards(folder, index)


def check_safetensors(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file, after its header and length are checked.

    Raises: BadInput when the file is truncated or corrupt.
    """
    return list(_entries(path))


def _entries(path: Path) -> dict[str, Any]:
    """What the checked header of a safetensors file says of each tensor: dtype, shape, data_offsets."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise BadInput(f"{path} is truncated or no safetensors file: fetch or save it again")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        expected = max((_end_of(entry) for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} has a corrupt safetensors header: fetch or save it again") from error
    if expected != size - 8 - length:
        raise BadInput(
            f"{path} holds {size - 8 - length} bytes of weights where its header says {expected}: "
            "it is truncated or corrupt, fetch or save it again"
        )
    return dict(tensors)


def _refuse_quantised(folder: Path, config: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Quantised weights have no gradients and other digits: refused by their settings, or by a weight's own type."""
    nested = config.get("text_config")
    for place in (config, nested if isinstance(nested, dict) else {}):
        settings = place.get("quantization_config")
        if settings:
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            named = str(method or "an unnamed method")[:80]
            raise BadInput(f"{folder} holds weights quantised by {named}: {_UNQUANTISED}")
    for path in files:
        for name, entry in _entries(path).items():
            is_matrix = name.endswith("weight") and len(entry["shape"]) == 2
            if is_matrix and entry["dtype"] not in FLOATING:
                raise BadInput(f"{folder} holds {name} as {entry['dtype']}, which is quantised: {_UNQUANTISED}")


def _end_of(entry: Mapping[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    n_bits = math.prod(entry["shape"]) * BITS[entry["dtype"]]
    if begin < 0 or min(entry["shape"], default=0) < 0 or (end - begin) * 8 != n_bits:
        raise ValueError("offsets disagree with the shape")
    return int(end)


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("no file names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{index} is not a safetensors index: fetch or save it again") from error
    held: dict[str, str] = {}
    for name in names:
        path = folder / name
        if Path(name).name != name or not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises on a long name
            raise BadInput(f"{index} names {name[:80]}, which is not in the folder: fetch the missing file")
        held.update((tensor, name) for tensor in check_safetensors(path))
    for tensor, name in weight_map.items():
        if held.get(tensor) != name:
            raise BadInput(f"{index} promises {tensor} in {name}, where it is not: fetch or save the model again")
    return [folder / name for name in names]


def _causal_architecture(folder: Path, config: Mapping[str, Any]) -> str:
    """The class name in config.json, refused unless it is a causal language model that needs no code of its own."""
    if "auto_map" in config and not _is_built_in(str(config.get("model_type"))):
        raise BadInput(f"{folder} wants code of its own run (auto_map), which Mneme never does: use a built-in model")
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or len(architectures) != 1:
        found = str(architectures)[:80]
        raise BadInput(f"{folder}/config.json must name one architecture, not {found}: save the model again")
    architecture = str(architectures[0])[:80]
    is_causal = "CausalLM" in architecture or "LMHeadModel" in architecture
    if config.get("is_encoder_decoder") or not is_causal:
        raise BadInput(f"{folder} holds a {architecture}, not a causal language model: choose a ...ForCausalLM model")
    return architecture


def _is_built_in(model_type: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415  slow, rarely needed

    return model_type in CONFIG_MAPPING_NAMES


def _sizes(config: Mapping[str, Any]) -> dict[str, int | None]:
    nested = config.get("text_config")
    fields = nested if isinstance(nested, dict) else config

    def first(*names: str) -> int | None:
        return next((int(fields[name]) for name in names if isinstance(fields.get(name), int)), None)

    n_heads = first("num_attention_heads", "n_head", "n_heads", "num_heads")
    n_kv_heads = first("num_key_value_heads", "num_kv_heads", "n_head_kv")
    d_model = first("hidden_size", "n_embd", "d_model")
    head_width = first("head_dim")
    if head_width is None and d_model is not None and n_heads:
        head_width = d_model // n_heads
    return {
        "n_layers": first("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        "n_heads": n_heads,
        "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads,
        "head_width": head_width,
        "d_model": d_model,
        "vocab_size": first("vocab_size"),
        "context": first(
            "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "context"
        ),
    }


def _refuse_escaping_links(folder: Path) -> None:
    """Refuse links that lead out of the folder; the hub cache links into its own repository folder, which is fine."""
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    for path in folder.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):  # resolve() raises on a loop
            raise BadInput(f"{path} is a link that leaves the model folder: replace it by the file itself")


def _refuse_adapter(folder: Path) -> None:
    """With peft installed transformers would load the model that the adapter names in the place of this folder's."""
    if (folder / "adapter_config.json").exists():
        raise BadInput(f"{folder} holds an adapter (adapter_config.json): merge it into the model and save that")


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
