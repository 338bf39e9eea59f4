"""Answers given token by token: a prompt followed by them, and whether the model says them without the context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.batch import Batch
from mneme.encoding import padded
from mneme.fact_conflicts import question_alone
from mneme.model import LanguageModel
from mneme.promptset import Promptset
from mneme.shared_prefix import run_shared

NOT_SAID = -1  # beyond the end of a shorter answer


def followed_by(prompts: Batch, answers: Sequence[Sequence[int]]) -> tuple[Batch, Tensor, Tensor]:
    """Prompts followed by all tokens of their answers but the last, which nothing follows.

    Returns: the batch; said [item step], the tokens in turn, -1 beyond the end of a shorter answer; rows [item step],
    the position that predicts each of them, beyond the end the one of the last.
    """
    n_steps = max(len(each) for each in answers)
    said = torch.tensor([[*each, *[NOT_SAID] * (n_steps - len(each))] for each in answers])
    lengths = prompts.lengths
    ids = torch.cat([prompts.ids, prompts.ids.new_zeros(len(said), n_steps - 1)], dim=1)
    for item, tokens in enumerate(answers):
        ids[item, lengths[item] : lengths[item] + len(tokens) - 1] = torch.tensor(tokens[:-1])
    n_said = (said != NOT_SAID).sum(dim=1)
    longest = int((lengths + n_said).max()) - 1
    rows = lengths[:, None] - 1 + torch.minimum(torch.arange(n_steps), n_said[:, None] - 1)
    return Batch(ids[:, :longest], lengths + n_said - 1), said, rows


def said_closed_book(lm: LanguageModel, prompts: Promptset, answers: Sequence[Sequence[int]]) -> Tensor:
    """Whether the model says the whole answer to a question without its context: bool [item].

    The context is what stands in front of the label `question_first`; the question keeps the prompt's first token.
    Every token of the answer has to be the first choice after those before it, which is what greedy decoding says; a
    tie is no credit. Equal questions with equal answers are run once. Without that label nothing is known to be said:
    False for every prompt.
    Source: METHODS 2a (reject a needle that is answerable closed book)
    """
    alone = question_alone(prompts)
    if alone is None:
        return torch.zeros(len(prompts), dtype=torch.bool)
    questions = [row[:length] for row, length in zip(alone.ids.tolist(), alone.lengths.tolist(), strict=True)]
    pairs = [(tuple(question), tuple(answer)) for question, answer in zip(questions, answers, strict=True)]
    distinct = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    batch, said, rows = followed_by(
        padded([list(question) for question, _ in distinct]), [answer for _, answer in distinct]
    )
    hidden = run_shared(lm, batch, rows, lambda *_: None)
    is_top = torch.stack([_is_first_choice(lm, *step) for step in zip(hidden.unbind(1), said.unbind(1), strict=True)])
    return is_top.all(dim=0)[torch.tensor([distinct[pair] for pair in pairs])]


def _is_first_choice(lm: LanguageModel, hidden: Tensor, said: Tensor) -> Tensor:
    """Whether each token [item] alone has the highest logit after hidden [item d_model]; True where none is said."""
    logits = lm.backbone.unembed(hidden).cpu()
    is_top = logits == logits.amax(dim=1, keepdim=True)
    is_said = is_top.gather(1, said.clamp_min(0)[:, None])[:, 0] & (is_top.sum(dim=1) == 1)
    return is_said | (said == NOT_SAID)
