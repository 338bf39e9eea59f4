"""Traces of a promptset: what probes read, as named arrays to store, several sites in one pass over the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mneme.answers import PairedAnswers
from mneme.attention import AttentionInputs
from mneme.batch import Batch
from mneme.batching import in_batches
from mneme.capturing import stream_attention
from mneme.errors import BadInput
from mneme.model import LanguageModel
from mneme.probe import Site
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.scores import AnswerScores, TokenScores
from mneme.scoring import answer_scores, scores_of_hidden

Arrays = dict[str, Tensor]
SITES: tuple[Site, ...] = ("attention_inputs", "token_scores", "answer_scores")
BATCHES = (
    "batch_sizes"  # prompts per forward: whoever reads the trace takes the same ones together, for the same digits
)
_ANSWER_FIELDS = ("correct", "wrong", "top", "top_id", "n_top", "log_normaliser")


@torch.no_grad()
def trace_sites(
    lm: LanguageModel, prompts: Promptset, sites: Sequence[Site], progress: Progress = silent
) -> dict[Site, Arrays]:
    """Named arrays of each site; attention inputs and token scores come from the same forward passes.

    attention_inputs: `<layer>.query` [item head position width], `<layer>.key` [item kv_head position width] and the
    rest of `AttentionInputs.to_arrays`, zero at padding. token_scores: `log_prob`, `is_top1` [item position].
    answer_scores: `clean.<field>` and, for pairs, `corrupt.<field>` of `AnswerScores`. A site that does not apply
    (no interface to the model's attention, no answers) is an empty dict.
    """
    unknown = [site for site in sites if site not in SITES]
    if unknown:
        raise BadInput(f"unknown site '{unknown[0]}': a trace holds {', '.join(SITES)}")
    found: dict[Site, Arrays] = {site: {} for site in sites}
    reads_attention = "attention_inputs" in sites and lm.attention
    if reads_attention or "token_scores" in sites:
        captured = _Captured(lm, prompts.clean.ids.shape[1], "token_scores" in sites)
        run_batches(lm, prompts, captured.keep if reads_attention else None, captured.close, progress)
        if reads_attention:
            found["attention_inputs"] = captured.attention_arrays()
        if "token_scores" in sites:
            found["token_scores"] = captured.token_arrays()
    if "answer_scores" in sites and prompts.correct_ids is not None:
        found["answer_scores"] = _answer_arrays(lm, prompts)
    return found


Visit = Callable[[Promptset, AttentionInputs], None]
Finish = Callable[[Tensor, Batch], None]


@torch.no_grad()
def run_batches(
    lm: LanguageModel, prompts: Promptset, visit: Visit | None, finish: Finish, progress: Progress = silent
) -> None:
    """One pass over the clean prompts: `visit` gets each layer's attention inputs, then `finish` the batch.

    `finish` gets the final hidden states [item position width] and the batch. A batch that runs out of memory is run
    again in halves: `visit` then sees its first layers twice, and the later call counts.
    """

    def run(items: slice) -> Tensor:
        part = prompts.select(items)
        batch = lm.batch(part.clean)
        if visit is None:
            hidden = lm.backbone.hidden(batch.ids)
        else:
            hidden = stream_attention(lm, batch, lambda layer: visit(part, contiguous(layer)))
        finish(hidden, batch)
        return torch.empty(len(part), 0)

    in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress)


def contiguous(layer: AttentionInputs) -> AttentionInputs:
    """The same inputs with queries and keys laid out as a stored trace has them: the same digits on both roads."""
    return replace(layer, query=layer.query.contiguous(), key=layer.key.contiguous())


class _Captured:
    """Attention inputs and scores of the batches of one pass."""

    def __init__(self, lm: LanguageModel, n_positions: int, scores: bool) -> None:
        self.lm = lm
        self.n_positions = n_positions
        self.scores = scores
        self.waiting: dict[int, Arrays] = {}
        self.layers: list[dict[int, Arrays]] = []
        self.sizes: list[int] = []
        self.parts: list[tuple[Tensor, Tensor]] = []

    def keep(self, _: Promptset, layer: AttentionInputs) -> None:
        """Keep a layer of the running batch."""
        self.waiting[layer.layer] = {name: array.cpu() for name, array in layer.to_arrays().items()}

    def close(self, hidden: Tensor, batch: Batch) -> None:
        """Close the running batch."""
        self.sizes.append(len(batch))
        self.layers.append(self.waiting)
        self.waiting = {}
        if self.scores:
            missing = self.n_positions - batch.ids.shape[1]
            log_prob, is_top1 = scores_of_hidden(self.lm, hidden, batch)
            padded = [F.pad(each.cpu(), (0, missing), value=torch.nan) for each in (log_prob, is_top1)]
            self.parts.append((padded[0], padded[1]))

    def token_arrays(self) -> Arrays:
        """Token scores of all batches."""
        log_prob, is_top1 = (torch.cat(column) for column in zip(*self.parts, strict=True))
        return {"log_prob": log_prob, "is_top1": is_top1}

    def attention_arrays(self) -> Arrays:
        """Attention inputs of all batches, padded to one length."""
        arrays: Arrays = {BATCHES: torch.tensor(self.sizes)}
        for index in sorted(self.layers[0]):
            parts = [batch.pop(index) for batch in self.layers]
            for name in parts[0]:
                arrays[f"{index}.{name}"] = self._joined(name, [part[name] for part in parts])
        return arrays

    def _joined(self, name: str, parts: list[Tensor]) -> Tensor:
        if name in ("query", "key"):
            return torch.cat([F.pad(part, (0, 0, 0, self.n_positions - part.shape[2])) for part in parts])
        if name == "normaliser":
            return torch.cat([F.pad(part, (0, self.n_positions - part.shape[2])) for part in parts])
        if name == "lengths":
            return torch.cat(parts)
        if name == "mask":
            missing = [self.n_positions - part.shape[-1] for part in parts]
            grown = [F.pad(part, (0, more, 0, more)) for part, more in zip(parts, missing, strict=True)]
            return torch.cat([part.expand(size, -1, -1, -1) for part, size in zip(grown, self.sizes, strict=True)])
        return parts[0]


def stored_batches(arrays: Mapping[str, Tensor], prompts: Promptset) -> list[slice]:
    """The batches that a stored trace was captured in."""
    stops = torch.cumsum(arrays[BATCHES], dim=0).tolist()
    if not stops or stops[-1] != len(prompts):
        raise BadInput(f"the trace holds {stops[-1] if stops else 0} prompts, not {len(prompts)}: capture it again")
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def stored_layers(arrays: Mapping[str, Tensor], items: slice) -> list[AttentionInputs]:
    """Attention inputs of some items, cut to the longest of them, layer by layer."""
    layers: dict[int, Arrays] = {}
    for name, array in arrays.items():
        if name != BATCHES:
            layer, field = name.split(".", maxsplit=1)
            layers.setdefault(int(layer), {})[field] = array
    return [_cut(AttentionInputs.from_arrays(index, layers[index]).select(items)) for index in sorted(layers)]


def _cut(inputs: AttentionInputs) -> AttentionInputs:
    longest = int(inputs.lengths.max())
    mask = None if inputs.mask is None else inputs.mask[..., :longest, :longest]
    query, key = inputs.query[:, :, :longest], inputs.key[:, :, :longest]
    normaliser = None if inputs.normaliser is None else inputs.normaliser[:, :, :longest]
    return contiguous(replace(inputs, query=query, key=key, mask=mask, normaliser=normaliser))


def stored_token_scores(arrays: Mapping[str, Tensor]) -> TokenScores:
    """Token scores of a stored trace."""
    return TokenScores(arrays["log_prob"], arrays["is_top1"])


def stored_answers(arrays: Mapping[str, Tensor]) -> PairedAnswers:
    """Answer scores of a stored trace."""

    def scores(side: str) -> AnswerScores:
        return AnswerScores(**{field: arrays[f"{side}.{field}"] for field in _ANSWER_FIELDS})

    return PairedAnswers(scores("clean"), scores("corrupt") if "corrupt.top" in arrays else None)


def _answer_arrays(lm: LanguageModel, prompts: Promptset) -> Arrays:
    assert prompts.correct_ids is not None  # noqa: S101  the caller checks
    arrays: Arrays = {}
    for side, batch in (("clean", prompts.clean), ("corrupt", prompts.corrupt)):
        if batch is not None:
            scores = answer_scores(lm, batch, prompts.correct_ids, prompts.wrong_ids)
            arrays |= {f"{side}.{field}": getattr(scores, field).cpu() for field in _ANSWER_FIELDS}
    return arrays
