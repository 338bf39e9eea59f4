"""A tokenizer of whole words: every word, two-digit number and punctuation mark of the micro-world is one token."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, PAD, UNKNOWN = "<bos>", "<pad>", "<unk>"
SPECIALS = (BOS, PAD, UNKNOWN)
_PIECE = r"\d\d|\w+|[^\w\s]"  # the years of a century are two tokens, as in GPT-2


def words_in(text: str) -> list[str]:
    """The tokens of a text, as the tokenizer cuts it."""
    return re.findall(_PIECE, text)


def word_tokenizer(words: Iterable[str], context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens first and the words after them, each once, in the order given.

    It puts `<bos>` in front by itself, like Llama's. A word that it does not know is `<unk>`, which is special: a
    generator that meets it rejects the prompt.
    """
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*SPECIALS, *words]))}
    backend: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, pad_token=PAD, unk_token=UNKNOWN, model_max_length=context
    )
