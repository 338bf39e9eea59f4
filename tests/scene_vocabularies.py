"""Vocabularies for prompts told in scenes: the micro-world's whole words, and a BPE trained on the scenes' own text."""

from collections.abc import Iterable
from functools import cache

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mneme.lexicon import LEXICON
from mneme.microworld.documents import scene_of
from mneme.microworld.tokenizer import word_tokenizer, words_in
from mneme.promptset import Vocabulary
from mneme.words import Words

END = "<|endoftext|>"


@cache
def texts(behavior: str, n: int = 400, split: str = "train") -> tuple[str, ...]:
    """Training documents of a behavior."""
    rng, words = np.random.default_rng(0), Words(split)
    return tuple(scene_of(behavior)(rng, words).document().text for _ in range(n))


@cache
def word_vocabulary(behavior: str, context: int = 512) -> Vocabulary:
    """Every word of the lexicon and of the behavior's documents is one token; it puts a first token in front."""
    words = dict.fromkeys(word for members in LEXICON.values() for word in members)
    for split in ("train", "evaluation"):
        words |= dict.fromkeys(word for text in texts(behavior, split=split) for word in words_in(text))
    tokenizer = word_tokenizer(words, context)
    special = frozenset(tokenizer.all_special_ids)
    return Vocabulary(len(tokenizer), context, "native", tokenizer.bos_token_id, special, tokenizer)


@cache
def bpe_vocabulary(behavior: str, vocab_size: int = 1500, context: int = 512) -> Vocabulary:
    """A GPT-2-like tokenizer trained on the behavior's documents: rare words are several tokens, years two."""
    return trained_bpe(texts(behavior), r" ?\d\d", vocab_size, context)


def trained_bpe(documents: Iterable[str], number: str, vocab_size: int, context: int) -> Vocabulary:
    """A GPT-2-like tokenizer trained on documents; what the pattern `number` matches is split off before."""
    tokenizer = Tokenizer(models.BPE())
    numbers = pre_tokenizers.Split(Regex(number), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([numbers, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    return Vocabulary(len(wrapped), context, "eot_as_bos", 0, frozenset({0}), wrapped)
