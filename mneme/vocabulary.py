"""What a generator may know of a model, read from its config and tokenizer files: never its weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from transformers import AutoConfig, AutoTokenizer

import mneme.bigram
import mneme.lstm
import mneme.sigmoid_attention  # noqa: F401  all make model classes of ours known to transformers
from mneme.context import exact_context
from mneme.errors import BadInput
from mneme.promptset import BosMode, Vocabulary

UNLIMITED = 2**31 - 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def read_vocabulary(folder: str | Path, bos_mode: str = "auto") -> Vocabulary:
    """The vocabulary of the model in `folder`.

    bos_mode: `native` = the tokenizer puts a BOS in front by itself, or, asked for without a tokenizer, the model was
    trained behind its config's BOS; `eot_as_bos` = the model has a BOS or an
    end-of-text token that its tokenizer does not add, and it goes in front; `none` = nothing does; `auto` = the first
    of these that the model allows. Special ids are the tokenizer's special tokens, the config's bos, eos and pad, byte
    fallbacks (`<0x0A>`), which hardly occur in text, and rows of the embedding that no token has.
    Raises: BadInput when config or tokenizer cannot be read, or the model does not allow the bos_mode.
    Source: METHODS 0 (BOS).
    """
    path = Path(folder)
    config = _read_config(path)
    size = int(config.vocab_size)
    tokenizer = _read_tokenizer(path)
    candidates = _first_candidates(config, tokenizer, size)
    native = _added_first(tokenizer) if tokenizer is not None else None
    if tokenizer is None and bos_mode == "native":
        native = next(iter(_ids_of(getattr(config, "bos_token_id", None), size)), None)
    mode, first_id = _choose(path, bos_mode, native, candidates[0] if candidates else None)
    return Vocabulary(
        size=size,
        context=exact_context(config) or UNLIMITED,
        bos_mode=mode,
        first_id=first_id,
        special_ids=frozenset(candidates) | _special_ids(config, tokenizer, size),
        tokenizer=tokenizer,
    )


def _read_config(path: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} holds no config.json that transformers reads: {error}") from error
    if getattr(config, "vocab_size", None) is None:
        raise BadInput(f"{path}/config.json states no vocab_size: name the folder of a causal language model")
    return config


def _read_tokenizer(path: Path) -> Any:
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(f"the tokenizer files in {path} cannot be read: {error}") from error


def _ids_of(value: Any, size: int) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if isinstance(each, int) and 0 <= each < size]


def _first_candidates(config: Any, tokenizer: Any, size: int) -> list[int]:
    """BOS and end-of-text ids inside the vocabulary, the likeliest first token first."""
    found: list[int] = []
    for name in ("bos_token_id", "eos_token_id"):
        for holder in (tokenizer, config):
            found += _ids_of(getattr(holder, name, None), size)
    return found


def _added_first(tokenizer: Any) -> int | None:
    """The id that the tokenizer puts in front of a text by itself."""
    whole, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    return int(whole[0]) if len(whole) > len(bare) and whole[0] in tokenizer.all_special_ids else None


def _choose(path: Path, asked: str, native: int | None, candidate: int | None) -> tuple[BosMode, int | None]:
    if asked == "auto":
        asked = "native" if native is not None else "eot_as_bos" if candidate is not None else "none"
    if asked not in ("native", "eot_as_bos", "none"):
        raise BadInput(f"bos_mode is '{asked}': choose auto, native, eot_as_bos or none")
    first = {"native": native, "eot_as_bos": candidate, "none": None}[asked]
    if asked == "native" and native is None:
        raise BadInput(
            f"bos_mode native: nothing in {path} puts a BOS in front by itself; choose auto, eot_as_bos or none"
        )
    if asked == "eot_as_bos" and candidate is None:
        raise BadInput(f"bos_mode eot_as_bos: the model in {path} has neither BOS nor end-of-text; choose auto or none")
    return cast(BosMode, asked), first


def _special_ids(config: Any, tokenizer: Any, size: int) -> frozenset[int]:
    found = set(_ids_of(getattr(config, "pad_token_id", None), size))
    if tokenizer is None:
        return frozenset(found)
    found |= set(tokenizer.all_special_ids)
    found |= {each for each, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokens = tokenizer.get_vocab()
    found |= {each for token, each in tokens.items() if _BYTE_TOKEN.fullmatch(token)}
    found |= set(range(size)) - set(tokens.values())
    return frozenset(each for each in found if each < size)
