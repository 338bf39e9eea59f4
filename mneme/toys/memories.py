"""Small models with memories of different kinds and sizes, and how many numbers each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Mamba2Config, Mamba2ForCausalLM

from mneme.arguments import one_of, whole_number
from mneme.errors import BadInput
from mneme.lstm import lstm_model

SHAPES = ("attention", "lstm", "mamba2")
HEAD_WIDTH = 32
CHUNK = 16  # positions that the scan of Mamba-2 takes at once: on a CPU small ones are faster


@dataclass(frozen=True)
class MemoryShape:
    """Sizes of a model with a memory: `shape` one of attention, lstm, mamba2; `state_width` is read by mamba2 alone.

    Raises: BadInput for a word that is no shape, and for sizes that do not fit together.
    """

    shape: str
    n_layers: int
    width: int
    state_width: int

    def __post_init__(self) -> None:
        one_of("shape", self.shape, SHAPES)
        for name in ("n_layers", "width", "state_width"):
            whole_number(name, getattr(self, name), 1)
        if self.shape != "lstm" and self.width % HEAD_WIDTH:
            raise BadInput(f"width {self.width} is no multiple of {HEAD_WIDTH}, the width of a head: change it")


def memory_model(shape: MemoryShape, vocab_size: int, context: int, first_id: int) -> Any:
    """A new model of the shape, from torch's random state.

    `attention`: Llama's (rotary positions, RMSNorm), heads of 32; `lstm`: mneme/lstm.py; `mamba2`: transformers' class,
    heads of 32, twice the width inside. Embeddings are tied.
    """
    about = {"vocab_size": vocab_size, "hidden_size": shape.width, "num_hidden_layers": shape.n_layers}
    about |= {"bos_token_id": first_id, "eos_token_id": first_id, "tie_word_embeddings": True}
    if shape.shape == "lstm":
        return lstm_model(vocab_size, shape.width, shape.n_layers, context, first_id)
    if shape.shape == "attention":
        n_heads = shape.width // HEAD_WIDTH
        return LlamaForCausalLM(
            LlamaConfig(
                **about,
                intermediate_size=2 * shape.width,
                num_attention_heads=n_heads,
                num_key_value_heads=n_heads,
                max_position_embeddings=context,
            )
        )
    return Mamba2ForCausalLM(
        Mamba2Config(
            **about,
            state_size=shape.state_width,
            expand=2,
            head_dim=HEAD_WIDTH,
            num_heads=2 * shape.width // HEAD_WIDTH,
            n_groups=1,
            chunk_size=CHUNK,
            pad_token_id=None,  # the class's own default is 0, which is a token of the task
            max_position_embeddings=context,  # not a limit of the network: the longest row it was trained on
        )
    )


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """States before the unembedding [item position width]."""
    found: Tensor = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
    return found


def state_numbers(shape: MemoryShape, n_tokens: int) -> int:
    """How many numbers the model holds of what it has read after `n_tokens` tokens.

    An LSTM: a cell and an output of its width in each layer. Mamba-2: in each layer a state of width times state width,
    and the inputs of its convolution over the last 4 tokens but the newest. Attention: keys and values of every token.
    """
    if shape.shape == "lstm":
        return shape.n_layers * 2 * shape.width
    if shape.shape == "attention":
        return shape.n_layers * 2 * shape.width * n_tokens
    inner, kernel = 2 * shape.width, 4
    return shape.n_layers * (inner * shape.state_width + (kernel - 1) * (inner + 2 * shape.state_width))
