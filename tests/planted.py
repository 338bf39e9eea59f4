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


def knowing_copy_model(facts: dict[int, int]) -> GPT2LMHeadModel:
    """The copy model, which besides knows by heart what follows some tokens, whatever stands before: token -> next.

    The unembedding reads it off the token itself, three times as strongly as what the induction head writes.
    """
    model = copy_model()
    with torch.no_grad():
        for token, answer in facts.items():
            model.lm_head.weight[answer, token] = 3 * SCALE
    return model


def uniform_model() -> GPT2LMHeadModel:
    """Every head attends uniformly (all queries are 0) and writes nothing; every next token is equally likely."""
    return _blank()


def conflict_model(context: float = 3.0, memory: float = 2.0) -> GPT2LMHeadModel:
    """Two heads at odds over the prompt [first, subject, answer, subject] (METHODS 10a), and two that do nothing.

    L0H0 looks at the token before and writes `context` times it where it is an answer, tokens 41 to 80; L0H1 looks at
    its own token and, where that is one of the subjects 1 to 30, writes `memory` times the answer 40 further on, which
    is what the model knows. Both write the output block, which the unembedding reads.
    """
    model = _blank()
    block = model.transformer.h[0]
    answers, subjects = torch.arange(BLOCK), torch.arange(BLOCK)
    read = torch.diag(((answers > 40) & (answers <= 80)).float())
    recall = torch.diag(((subjects > 0) & (subjects <= 30)).float()).roll(40, dims=1)
    looks = torch.diag(torch.ones(BLOCK - 1), diagonal=-1), torch.eye(BLOCK)
    for head, (rule, values) in enumerate(zip(looks, (context * read, memory * recall), strict=True)):
        _conflict_head(block, head, rule, values)
    _identity_norm(block.ln_1, n_ones=2)
    return model


def save(model: GPT2LMHeadModel, folder: Path) -> Path:
    """The model as a `save_pretrained` folder."""
    model.save_pretrained(folder)
    return folder


def _blank(n_layers: int = 2) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=BLOCK,
        n_positions=BLOCK,
        n_embd=4 * BLOCK,
        n_inner=8,
        n_layer=n_layers,
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
def _conflict_head(block: torch.nn.Module, head: int, rule: Tensor, values: Tensor) -> None:
    """A head whose query is the position times `rule`, its key the position, its value the token times `values`."""
    width, here = 4 * BLOCK, slice(head * BLOCK, (head + 1) * BLOCK)
    weights = block.attn.c_attn.weight
    weights[POSITION, here] = rule * SCALE * BLOCK**0.5
    weights[POSITION, width : 2 * width][:, here] = torch.eye(BLOCK)
    weights[TOKEN, 2 * width :][:, here] = values
    block.attn.c_proj.weight[here, OUT] = torch.eye(BLOCK)


@torch.no_grad()
def _identity_norm(norm: torch.nn.LayerNorm, n_ones: int) -> None:
    """Gain and bias that undo the LayerNorm of a vector with exactly `n_ones` ones and zeros elsewhere."""
    mean = n_ones / (4 * BLOCK)
    norm.weight.fill_((mean - mean**2 + norm.eps) ** 0.5)
    norm.bias.fill_(mean)


def back_copying_model(triggers: tuple[int, ...]) -> GPT2LMHeadModel:
    """A model with one active-dormant head (METHODS 18): L0H0 looks back at triggers and rests everywhere else.

    At a trigger L0H0 matches position q - 1 and writes the token there to the output; at any other token it attends to
    the first token, whose value is 0. The unembedding holds a bigram: token t is followed by t + 1, and nothing follows
    a trigger. Layer 1, the other heads and the MLPs write nothing.
    """
    model = _blank()
    block = model.transformer.h[0]
    _head(block, POSITION, torch.diag(torch.ones(BLOCK - 1), diagonal=-1), POSITION, TOKEN, OUT)
    _identity_norm(block.ln_1, n_ones=2)
    resting = torch.tensor([each for each in range(BLOCK) if each not in triggers])
    with torch.no_grad():
        block.attn.c_attn.weight[resting, 0] += 3 * SCALE * BLOCK**0.5
        block.attn.c_attn.weight[FIRST_ID, 8 * BLOCK : 9 * BLOCK] = 0
        ordinary = resting[resting != FIRST_ID]
        model.lm_head.weight[(ordinary + 1) % FIRST_ID, ordinary] = SCALE
    return model


def bag_model(weights: Tensor, answer: int) -> GPT2LMHeadModel:
    """A bag of tokens: one head adds up what tokens say, those that say something in equal measure.

    L0H0 attends to each token in proportion to exp(its weight), wherever it stands, and writes 1 for `answer` from
    every token with a weight above 0, nothing from the others: the more attention a token gets, the more it adds.
    Shape: weights [vocab].
    """
    model = _blank()
    block, wide = model.transformer.h[0], 4 * BLOCK
    _identity_norm(block.ln_1, n_ones=2)
    with torch.no_grad():
        block.attn.c_attn.weight[POSITION, 0] = BLOCK**0.5
        block.attn.c_attn.weight[TOKEN, wide] = weights
        block.attn.c_attn.weight[TOKEN, 2 * wide] = (weights > 0).float()
        block.attn.c_proj.weight[0, OUT.start + answer] = 1.0
    return model


def additive_model(effects: Tensor) -> GPT2LMHeadModel:
    """A sum: each head adds its effect [layer head] to logit 0 where the last of two tokens is 1; nothing else does.

    Width 32, no norm bends anything, all attention is uniform. Token 1 sets coordinate 1, which all heads read; they
    write coordinate 0, which logit 0 reads. Coordinates from 16 on hold biases that tell the parts of the model apart.
    """
    n_layers, n_heads = effects.shape
    config = GPT2Config(
        vocab_size=8, n_positions=8, n_embd=32, n_inner=4, n_layer=n_layers, n_head=n_heads, tie_word_embeddings=False
    )
    model = GPT2LMHeadModel(config).requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.transformer.wte.weight[1, 1] = 1.0
    model.lm_head.weight[0, 0] = 1.0
    width = 32 // n_heads
    for layer, block in enumerate(model.transformer.h):
        block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
        block.attn.c_proj.bias[16 + layer] = block.mlp.c_proj.bias[24 + layer] = 1.0
        for head in range(n_heads):
            block.attn.c_attn.weight[1, 64 + head * width] = 1.0
            block.attn.c_proj.weight[head * width, 0] = 2 * float(effects[layer, head])  # half the attention is there
    model.transformer.ln_f = torch.nn.Identity()
    return model.eval()


IOI_NAMES, IOI_END = range(1, 40), 100  # tokens of the planted prompts: [first, name, 90, name, 91, name, 92, 100]


def ioi_model(negative: float = 0.3) -> GPT2LMHeadModel:
    """Indirect objects by five heads, over [first, A, filler, B, filler, S, filler, END] (METHODS 5a).

    L0H1 looks from END to the last name and writes it into the third block; elsewhere it writes the first token there.
    L1H0 looks from END to the names but the one so written, equally, and copies; L1H1 looks there too and writes
    `negative` times the opposite. L0H2 looks at the token before and L0H3 at equal tokens; both write nothing, as all
    other heads do. Without L0H1's word, L1H0 looks at all three names alike.
    """
    model = _blank()
    first, second = model.transformer.h
    eye, last_name, end = torch.eye(BLOCK), 5, 7
    to_last_name = torch.zeros(BLOCK, BLOCK)
    to_last_name[:, 0], to_last_name[end] = 1.0, torch.nn.functional.one_hot(torch.tensor(last_name), BLOCK).float()
    before = torch.diag(torch.ones(BLOCK - 1), diagonal=-1)
    _planted_head(first, 1, (POSITION, to_last_name, POSITION), (TOKEN, eye, PREVIOUS))
    _planted_head(first, 2, (POSITION, before, POSITION), (TOKEN, 0 * eye, OUT))
    _planted_head(first, 3, (TOKEN, eye, TOKEN), (TOKEN, 0 * eye, OUT))
    _identity_norm(first.ln_1, n_ones=2)
    _identity_norm(second.ln_1, n_ones=3)
    is_name = torch.zeros(BLOCK, BLOCK)
    is_name[end, IOI_NAMES.start : IOI_NAMES.stop] = 1.0
    for head, write in ((0, 1.0), (1, -negative)):
        _planted_head(second, head, (POSITION, is_name, TOKEN), (TOKEN, write * eye, OUT))
        here = slice(head * BLOCK, (head + 1) * BLOCK)
        with torch.no_grad():
            second.attn.c_attn.weight[PREVIOUS, here] = -eye * SCALE * BLOCK**0.5
    return model


@torch.no_grad()
def _planted_head(
    block: torch.nn.Module, head: int, looks: tuple[slice, Tensor, slice], writes: tuple[slice, Tensor, slice]
) -> None:
    """A head whose query is `looks[0]` times a rule, its key `looks[2]`; it writes `writes[0]` times a matrix."""
    wide, here = 4 * BLOCK, slice(head * BLOCK, (head + 1) * BLOCK)
    weights = block.attn.c_attn.weight
    weights[looks[0], here] = looks[1] * SCALE * BLOCK**0.5
    weights[looks[2], wide : 2 * wide][:, here] = torch.eye(BLOCK)
    weights[writes[0], 2 * wide :][:, here] = torch.eye(BLOCK)
    block.attn.c_proj.weight[here, writes[2]] = writes[1]


COLORS, COLORS_END = (10, 11, 12), 100  # the planted prompts: [first, three colors in any order, 100]


def colors_model() -> GPT2LMHeadModel:
    """Colors told apart by nothing but a taste, over [first, color, color, color, END] (METHODS 5c).

    L0H0 looks from END to the three colors equally and copies them, color 10 a little more than 11 and 11 than 12, so
    that 10 is always said. L0H1 looks everywhere equally and lowers what it looks at; made to look at some colors, it
    lowers those alone. All other heads write nothing.
    """
    model = _blank()
    block = model.transformer.h[0]
    taste = torch.eye(BLOCK)
    for place, color in enumerate(COLORS):
        taste[color, color] = 1.0 - 0.01 * place
    looks = torch.zeros(BLOCK, BLOCK)
    looks[4, 1:4] = 1.0
    nowhere = torch.zeros(BLOCK, BLOCK)
    _planted_head(block, 0, (POSITION, looks, POSITION), (TOKEN, taste, OUT))
    _planted_head(block, 1, (POSITION, nowhere, POSITION), (TOKEN, -0.9 * torch.eye(BLOCK), OUT))
    _identity_norm(block.ln_1, n_ones=2)
    return model


def inhibited_model() -> GPT2LMHeadModel:
    """As `colors_model`, in two layers: L0H1 tells L1H0 where not to look, over [first, color, color, color, END].

    L0H1 looks from END at the three colors equally, from elsewhere at the first token, and writes what it sees into the
    third block, which L1H0 reads as colors to avoid. L1H0 looks from END to the other colors equally and copies, with
    the taste of `colors_model`.
    """
    model = _blank()
    first, second = model.transformer.h
    taste, eye = torch.eye(BLOCK), torch.eye(BLOCK)
    for place, color in enumerate(COLORS):
        taste[color, color] = 1.0 - 0.01 * place
    looks = torch.zeros(BLOCK, BLOCK)
    looks[:4, 0], looks[4, 1:4] = 1.0, 1.0
    is_color = torch.zeros(BLOCK, BLOCK)
    is_color[4, list(COLORS)] = 1.0
    _planted_head(first, 1, (POSITION, looks, POSITION), (TOKEN, eye, PREVIOUS))
    _planted_head(second, 0, (POSITION, is_color, TOKEN), (TOKEN, taste, OUT))
    with torch.no_grad():
        second.attn.c_attn.weight[PREVIOUS, :BLOCK] = -eye * SCALE * BLOCK**0.5
    _identity_norm(first.ln_1, n_ones=2)
    _identity_norm(second.ln_1, n_ones=3)
    return model


def ioi_circuit_model(negative: float = 0.3) -> GPT2LMHeadModel:
    """Indirect objects with a head of every class of METHODS 5a, over `ioi_prompts(gap=2)`.

    L0H0 looks at the token before and writes it into the third block; L0H1 looks from END to the last name and writes
    it there too; L0H2 looks at equal tokens. L1H0 looks from END to the names but those in the third block, and copies;
    L1H1 looks there too and writes `negative` times the opposite; L1H2 looks at what followed the token before. L2H0
    looks from END to a name that neither the third block nor the output holds, and copies it; where there is none, at
    the first token: it answers once L1H0 does not. What is not named writes nothing.
    """
    model = _blank(3)
    first, second, third = model.transformer.h
    eye, last_name, end = torch.eye(BLOCK), 7, 9
    before = torch.diag(torch.ones(BLOCK - 1), diagonal=-1)
    before[0, 0] = 1.0
    to_last_name = torch.zeros(BLOCK, BLOCK)
    to_last_name[:, 0], to_last_name[end] = 1.0, torch.nn.functional.one_hot(torch.tensor(last_name), BLOCK).float()
    names = torch.zeros(BLOCK, BLOCK)
    names[end, IOI_NAMES.start : IOI_NAMES.stop] = 1.0
    _planted_head(first, 0, (POSITION, before, POSITION), (TOKEN, eye, PREVIOUS))
    _planted_head(first, 1, (POSITION, to_last_name, POSITION), (TOKEN, eye, PREVIOUS))
    _planted_head(first, 2, (TOKEN, eye, TOKEN), (TOKEN, 0 * eye, OUT))
    _planted_head(second, 0, (POSITION, names, TOKEN), (TOKEN, eye, OUT))
    _planted_head(second, 1, (POSITION, names, TOKEN), (TOKEN, -negative * eye, OUT))
    _planted_head(second, 2, (TOKEN, eye, PREVIOUS), (TOKEN, 0 * eye, OUT))
    names[end, FIRST_ID] = 0.5
    _planted_head(third, 0, (POSITION, 0.4 * names, TOKEN), (TOKEN, eye, OUT))
    with torch.no_grad():
        first.attn.c_attn.weight[FIRST_ID, 9 * BLOCK : 10 * BLOCK] = 0  # L0H1 writes nothing of the first token
        for head in (0, 1):
            here = slice(head * BLOCK, (head + 1) * BLOCK)
            second.attn.c_attn.weight[PREVIOUS, here] = -eye * SCALE * BLOCK**0.5
        for known in (PREVIOUS, OUT):
            third.attn.c_attn.weight[known, :BLOCK] = -0.8 * eye * SCALE * BLOCK**0.5
    _identity_norm(first.ln_1, n_ones=2)
    _identity_norm(second.ln_1, n_ones=3)
    _identity_norm(third.ln_1, n_ones=3)
    return model
