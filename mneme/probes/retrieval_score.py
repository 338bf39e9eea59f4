"""How often a head's top attention sits on the token of the needle that the model says next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mneme.arguments import number_between, one_of, whole_number
from mneme.batch import Batch
from mneme.closed_book import NOT_SAID, followed_by, said_closed_book
from mneme.errors import BadInput, NotApplicable
from mneme.greedy import decode_greedily
from mneme.interception import AttentionCall
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.retrieval import TIED, copied_share, top_keys, unigram_recall, words_of
from mneme.shared_prefix import run_shared

NEEDLE, NEEDLE_FIRST, QUESTION_FIRST = "value", "value_first", "question_first"


@probe(
    level="head",
    unit="fraction of the needle",
    low=0.0,
    high=None,
    source="Wu et al. 2024; METHODS 2a",
)
def retrieval_score(  # noqa: PLR0913  what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    progress: Progress = silent,
    decoding: str = "forced",
    count: str = "places",
    shift: int = 0,
    span: str = "needle",
    side: str = "clean",
    least_recall: float | None = None,
    n_steps: int = 50,
) -> Tensor:
    """Share of the needle's tokens that a head copies: its top key is that token at the step at which it is said.

    The needle is the span of the labels `value_first` .. `value`; at the step that says its token g, the query is the
    position that predicts g, and the top key is taken over everything that the model has read.

    Shape:  [item layer head]
    Unit:   fraction of the needle's tokens; a retrieval head has 0.1 or more
    Range:  0 .. 1; above 1 with `count: steps` where tokens are said again. NaN = the run is not kept, the model says
            the whole needle closed book, or the needle lies outside the layer's window
    decoding: `forced`, the prompt is followed by the needle itself; `greedy`, by what the model says, up to `n_steps`
            tokens or a newline or the end of the text
    count:  `places`, each token of the needle once; `steps`, every step with a hit, as the public code counts; `any`,
            1 where one token or more is copied, else 0: the mean over prompts is how often a head is active
    shift:  how many positions after the token count too: a head may read the token after the one that is said
    span:   `needle`, or `random`: as many tokens outside it, before the question, whatever they are, as a control
    side:   `clean` or `corrupt` prompts; corrupt ones that ask for a key without a needle are a control: about 0
    least_recall: runs are kept where more than this share of the needle is said: of its words (ROUGE-1 recall), or,
            forced, of its tokens, each predicted after the ones before; None = every run
    Closed book: with the label `question_first`, the clean prompt without what stands in front of it, save its first
            token. What is known by heart needs no retrieval, whatever variant asks. Without the label nothing is left
            out
    Raises: NotApplicable where the prompts have no label `value`; BadInput where prompt and needle exceed the context,
            and where a needle stands in the question or behind it
    Source: METHODS 2a. Departs from it in: teacher forcing is primary, words are not stemmed
    """
    decoding = one_of("retrieval_score.decoding", decoding, ("forced", "greedy"))
    count = one_of("retrieval_score.count", count, ("places", "steps", "any"))
    span = one_of("retrieval_score.span", span, ("needle", "random"))
    shift = whole_number("retrieval_score.shift", shift, 0)
    if least_recall is not None:
        least_recall = number_between("retrieval_score.least_recall", least_recall, 0, 1)
    needle = _Needle.of(prompts, one_of("retrieval_score.side", side, ("clean", "corrupt")))
    top, said, recall = (
        _forced(lm, needle, progress, is_recalled=least_recall is not None)
        if decoding == "forced"
        else _greedy(lm, needle, whole_number("retrieval_score.n_steps", n_steps, 1), progress)
    )
    place = needle.span if span == "needle" else _random_span(prompts, needle)
    score = copied_share(
        top, needle.batch.ids, said if span == "needle" else None, place, shift=shift, repeats=count == "steps"
    )
    if count == "any":
        score = (score > 0).float()
    is_kept = (place[0] >= 0) & ~said_closed_book(lm, prompts, needle.tokens)
    if least_recall is not None:
        is_kept &= recall > least_recall
    return score.masked_fill(~(is_kept[:, None] & _in_sight(lm, needle))[:, :, None], torch.nan)


@dataclass(frozen=True)
class _Needle:
    """The prompts that are run, and the needle: its tokens and the places of its first and last one, each [item]."""

    batch: Batch
    tokens: list[list[int]]
    span: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, prompts: Promptset, side: str) -> _Needle:
        """The needles of a promptset; raises NotApplicable where there are none, BadInput where one is asked itself."""
        labels = prompts.clean.labels
        if NEEDLE not in labels:
            raise NotApplicable(f"retrieval_score needs prompts with the label '{NEEDLE}' at the end of what is asked")
        batch = prompts.clean if side == "clean" else prompts.corrupt
        if batch is None:
            raise NotApplicable("retrieval_score of corrupt prompts needs pairs, and this promptset has none")
        last = labels[NEEDLE]
        first = labels.get(NEEDLE_FIRST, last)
        _refuse_asked(last, labels.get(QUESTION_FIRST))
        spans = zip(prompts.clean.ids.tolist(), first.tolist(), last.tolist(), strict=True)
        return cls(batch, [row[start : end + 1] for row, start, end in spans], (first, last))


def _refuse_asked(last: Tensor, question: Tensor | None) -> None:
    """Raise BadInput where a needle ends in the question or behind it."""
    if question is not None and bool((last >= question).any()):
        item = int((last >= question).nonzero()[0])
        raise BadInput(
            f"retrieval_score: the needle of prompt {item} ends at '{NEEDLE}', in the question that begins at "
            f"'{QUESTION_FIRST}' or behind it: let these labels name a needle in front of its question"
        )


@dataclass
class _Tops:
    """Top keys by prompt, as they come in: [item layer head step], -1 where there was no step."""

    lm: LanguageModel
    n_items: int
    n_steps: int
    keys: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has come yet."""
        self.lm.require_attention()
        self.keys = torch.full((self.n_items, self.lm.n_layers, self.lm.n_heads, self.n_steps), TIED)

    def note(self, call: AttentionCall, items: Tensor, rows: Tensor, steps: slice) -> None:
        """Take the top keys of some query rows [unit step] of a call."""
        lengths = torch.full((len(call.query),), call.key.shape[2])
        self.keys[items.cpu(), call.layer, :, steps] = top_keys(call.inputs(lengths), rows).cpu()


def _forced(
    lm: LanguageModel, needle: _Needle, progress: Progress, *, is_recalled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Top keys [item layer head step], what is said [item step] and the share that is predicted [item].

    is_recalled: whether that share is asked; else it is NaN, and nothing is unembedded.
    """
    batch, said, rows = followed_by(needle.batch, needle.tokens)
    n_said = (said != NOT_SAID).sum(dim=1)
    tops = _Tops(lm, len(said), said.shape[1])
    hidden = run_shared(
        lm, batch, rows, lambda call, items, local: tops.note(call, items, local, slice(None)), progress=progress
    )
    if not is_recalled:
        return tops.keys, said, torch.full((len(said),), torch.nan)
    predicted = torch.stack([lm.backbone.unembed(row).argmax(dim=-1) for row in hidden.unbind(dim=1)], dim=1).cpu()
    return tops.keys, said, ((predicted == said) & (said != NOT_SAID)).sum(dim=1) / n_said


def _greedy(lm: LanguageModel, needle: _Needle, n_steps: int, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
    """Top keys [item layer head step], what the model says [item step] and its ROUGE-1 recall [item]."""
    tops = _Tops(lm, len(needle.batch), n_steps)

    def visit(call: AttentionCall, items: Tensor, step: int) -> None:
        rows = torch.full((len(items), 1), call.query.shape[2] - 1, device=items.device)
        tops.note(call, items, rows, slice(step, step + 1))

    said = decode_greedily(lm, needle.batch, n_steps, _ends(lm), visit, progress).cpu()
    told = zip(said.tolist(), needle.tokens, strict=True)
    recall = [_recall(lm, [token for token in response if token >= 0], tokens) for response, tokens in told]
    return tops.keys, said, torch.tensor(recall)


def _recall(lm: LanguageModel, response: list[int], needle: list[int]) -> float:
    """ROUGE-1 recall of the needle's words, or of its tokens where it has no words."""
    if lm.tokenizer is None or not words_of(lm.tokenizer.decode(needle)):
        return unigram_recall(response, needle)
    return unigram_recall(words_of(lm.tokenizer.decode(response)), words_of(lm.tokenizer.decode(needle)))


def _ends(lm: LanguageModel) -> Callable[[int], bool]:
    """Whether a token ends a response: it holds a newline, or the text ends."""
    stated: Any = lm.hf.config.get_text_config().eos_token_id
    last = set(stated) if isinstance(stated, list) else {stated}

    @cache
    def ends(token: int) -> bool:
        return token in last or (lm.tokenizer is not None and "\n" in lm.tokenizer.decode([token]))

    return ends


def _random_span(prompts: Promptset, needle: _Needle) -> tuple[Tensor, Tensor]:
    """As many tokens outside the needle, before the question and after the first token; -1 where there is no room.

    The prompt's own tokens are the seed, so that a prompt has the same span in any company.
    """
    first, last = needle.span
    until = prompts.clean.labels.get(QUESTION_FIRST, prompts.clean.lengths - 1)
    found = []
    for item, tokens in enumerate(needle.tokens):
        n, room = len(tokens), int(until[item]) - len(tokens)
        free = [at for at in range(1, room + 1) if at + n <= int(first[item]) or at > int(last[item])]
        row = needle.batch.ids[item, : int(needle.batch.lengths[item])].tolist()
        found.append(int(np.random.default_rng(row).choice(free)) if free else -1)
    start = torch.tensor(found)
    return start, start + last - first


def _in_sight(lm: LanguageModel, needle: _Needle) -> Tensor:
    """Whether each layer sees the whole needle from where its last token is predicted: [item layer] bool."""
    first, last = needle.span
    query = needle.batch.lengths - 1 + last - first
    seen = [torch.ones_like(first, dtype=torch.bool) if each is None else first > query - each for each in lm.windows]
    return torch.stack(seen, dim=1)
