"""Stock models whose weights are set by hand, so that the answer of every probe is known (METHODS 1a, Annex B)."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.promptset import Vocabulary

BLOCK = 128  # width of each block of the residual stream, of a head, of the vocabulary and of the context
TOKEN, POSITION, PREVIOUS, OUT = (slice(each * BLOCK, (each + 1) * BLOCK) for each in range(4))
FIRST_ID = BLOCK - 1
SCALE = 50.0
PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD = (0, 0), (1, 0)
VOCABULARY = Vocabulary(BLOCK, BLOCK, "eot_as_bos", FIRST_ID, frozenset({FIRST_ID}))


def copy_model(induction_scale: float = SCALE) -> GPT2LMHeadModel:
    """Two layers of four heads that copy: L0H0 looks at the token before, L1H0 at what followed the token before.

    The residual stream is [token one-hot | position one-hot | token before | output]. L0H0 matches position q - 1 and
    writes the token there into the third block; L1H0 matches the query's token with the third block of the keys and
    writes their token into the fourth, which the unembedding reads. All other heads attend uniformly and write
    nothing; the MLPs write nothing; every LayerNorm but the last is the identity, since every position has the same
    number of ones before it. `induction_scale` is the score of a match in L1H0: beta gives it e^beta / (e^beta + q).
    """
    model = _blank()
    transformer = model.transformer
    identity = torch.eye(BLOCK)
    _head(transformer.h[0], POSITION, torch.diag(torch.ones(BLOCK - 1), diagonal=-1), POSITION, TOKEN, PREVIOUS)
    _head(transformer.h[1], TOKEN, identity * (induction_scale / SCALE), PREVIOUS, TOKEN, OUT)
    _identity_norm(transformer.h[0].ln_1, n_ones=2)
    _identity_norm(transformer.h[1].ln_1, n_ones=3)
    return model


def uniform_model() -> GPT2LMHeadModel:
    """Every head attends uniformly (all queries are 0) and writes nothing; every next token is equally likely."""
    return _blank()


def save(model: GPT2LMHeadModel, folder: Path) -> Path:
    """The model as a `save_pretrained` folder."""
    model.save_pretrained(folder)
    return folder


def _blank() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=BLOCK,
        n_positions=BLOCK,
        n_embd=4 * BLOCK,
        n_inner=8,
        n_layer=2,
        n_head=4,
        tie_word_embeddings=False,
        bos_token_id=FIRST_ID,
        eos_token_id=FIRST_ID,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
        model.transformer.wte.weight[:, TOKEN] = torch.eye(BLOCK)
        model.transformer.wpe.weight[:, POSITION] = torch.eye(BLOCK)
        model.lm_head.weight[:, OUT] = torch.eye(BLOCK) * SCALE
    return model


@torch.no_grad()
def _head(block: torch.nn.Module, asks: slice, rule: Tensor, answers: slice, reads: slice, writes: slice) -> None:
    """Head 0 of a block: query = `asks` block times `rule`, key = `answers`, value = `reads`, written to `writes`."""
    width = 4 * BLOCK
    weights, head = block.attn.c_attn.weight, slice(0, BLOCK)
    weights[asks, head] = rule * SCALE * BLOCK**0.5
    weights[answers, width : width + BLOCK] = torch.eye(BLOCK)
    weights[reads, 2 * width : 2 * width + BLOCK] = torch.eye(BLOCK)
    block.attn.c_proj.weight[head, writes] = torch.eye(BLOCK)


@torch.no_grad()
def _identity_norm(norm: torch.nn.LayerNorm, n_ones: int) -> None:
    """Gain and bias that undo the LayerNorm of a vector with exactly `n_ones` ones and zeros elsewhere."""
    mean = n_ones / (4 * BLOCK)
    norm.weight.fill_((mean - mean**2 + norm.eps) ** 0.5)
    norm.bias.fill_(mean)
