"""An LSTM language model as an ordinary Hugging Face model: a memory without attention, to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput

from mneme.arguments import whole_number

N_GATES = 4  # input, forget, cell, output: the order in which torch stacks them
FORGET = 1


class LstmConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of an `LstmForCausalLM`; `context` is the longest prompt it was trained on, not a limit of the network."""

    model_type = "mneme-lstm"
    attribute_map = {"max_position_embeddings": "context"}  # noqa: RUF012  as transformers declares it

    vocab_size: int = 50257
    hidden_size: int = 256
    num_hidden_layers: int = 2
    context: int = 512
    bos_token_id: int | None = None
    initializer_range: float = 0.1  # of the embeddings: with the usual 0.02, gates and logits hardly move at first
    tie_word_embeddings: bool = True


class LstmModel(PreTrainedModel):  # type: ignore[misc]
    """Embeddings and stacked LSTM layers of one width: ids [item position] -> hidden states [item position width]."""

    config: LstmConfig
    config_class = LstmConfig
    base_model_prefix = "lstm"

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.layers = nn.LSTM(width, width, config.num_hidden_layers, batch_first=True)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The library's own first weights, and the gates that keep the memory open at first (Gers et al. 2000)."""
        super()._init_weights(module)
        if isinstance(module, nn.LSTM):
            for name, bias in module.named_parameters():
                if name.startswith("bias_ih"):
                    opened = torch.zeros_like(bias).view(N_GATES, -1)
                    opened[FORGET] = 1.0
                    init.copy_(bias, opened.flatten())

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings."""
        return self.embeddings

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutputWithPast:
        """Read from an empty memory; what else a caller passes (masks, caches) has no bearing on an LSTM."""
        hidden, _state = self.layers(self.embeddings(input_ids))
        return BaseModelOutputWithPast(last_hidden_state=hidden)


class LstmForCausalLM(PreTrainedModel):  # type: ignore[misc]
    """An LSTM language model with tied embeddings and no dropout (METHODS 9, 15: the memory without attention).

    Shape: input_ids [item position] -> logits [item position vocab]. It reads from left to right, so padding on the
    right changes nothing before it.
    Source: Hochreiter & Schmidhuber 1997; tied embeddings: Press & Wolf 2017; departs from the AWD-LSTM of Armeni et
    al. 2022 in having no dropout
    """

    config: LstmConfig
    config_class = LstmConfig
    base_model_prefix = "lstm"
    _tied_weights_keys = {"lm_head.weight": "lstm.embeddings.weight"}  # noqa: RUF012  as transformers declares it

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.lstm = LstmModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding."""
        return self.lm_head

    def forward(self, input_ids: Tensor, **options: Any) -> CausalLMOutput:
        """Logits of the next token at every position."""
        return CausalLMOutput(logits=self.lm_head(self.lstm(input_ids, **options).last_hidden_state))


def lstm_model(
    vocab_size: int, width: int, n_layers: int, context: int, bos_token_id: int | None = None
) -> LstmForCausalLM:
    """A new LSTM with random weights, from torch's random state.

    width: of embeddings and layers alike; context: the longest prompt it will be trained on, in tokens.
    Raises: BadInput for a size that is no whole number from 1 on.
    """
    sizes = {"vocab_size": vocab_size, "width": width, "n_layers": n_layers, "context": context}
    for name, size in sizes.items():
        whole_number(f"lstm_model.{name}", size, 1)
    config = LstmConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=n_layers,
        context=context,
        bos_token_id=bos_token_id,
        eos_token_id=bos_token_id,
    )
    return LstmForCausalLM(config)


AutoConfig.register(LstmConfig.model_type, LstmConfig, exist_ok=True)
AutoModelForCausalLM.register(LstmConfig, LstmForCausalLM, exist_ok=True)
