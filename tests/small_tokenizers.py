"""Real tokenizers, small enough to train inside a test."""

from functools import cache
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, PreTrainedTokenizerFast

END = "<|endoftext|>"


@cache
def byte_level_bpe(vocab_size: int = 800) -> Tokenizer:
    """A GPT-2-like tokenizer trained on the prose of the repository; it adds no BOS by itself."""
    texts = resources.files("mneme.promptsets").joinpath("texts")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    prose = [path.read_text(encoding="utf-8") for path in sorted(texts.iterdir(), key=lambda each: each.name)]
    tokenizer.train_from_iterator(prose, trainer)
    return tokenizer


def save_tokenizer(folder: Path, *, adds_bos: bool = False, chat_template: str | None = None) -> None:
    """A tokenizer folder of the byte-level tokenizer, with a config for a model of its vocabulary beside it."""
    tokenizer = Tokenizer.from_str(byte_level_bpe().to_str())
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    if chat_template is not None:
        wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(wrapped), n_positions=128, bos_token_id=0, eos_token_id=0)
    config.save_pretrained(folder)
