"""Associative recall in ids over the number of pairs: the task that `pair_recall` trains, asked of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mneme.arguments import one_of, whole_number
from mneme.encoding import begun, padded
from mneme.errors import BadInput
from mneme.promptset import Promptset, Vocabulary, promptset
from mneme.toys.recall import BLANK, RecallTask, checked_sizes, context_of

CONTROLS = ("none", "shuffled_values", "unseen_key")


@dataclass(frozen=True)
class _List:
    """The longest list of a cluster in the order told: keys, values (from 0), which pair is asked, and what to ask.

    rank: the pairs of rank below n are those of the list with n pairs; the asked one has rank 0.
    """

    keys: NDArray[np.int64]
    values: NDArray[np.int64]
    rank: NDArray[np.int64]
    asked: int
    place: float
    unseen: int


@promptset(needs_tokenizer=False, source="Arora et al. 2023 (Zoology); METHODS 15")
def multi_query_recall(  # noqa: PLR0913  a generator's keywords are what its YAML may set
    vocabulary: Vocabulary,
    *,
    seed: int,
    n_items: int = 50,
    n_pairs: Sequence[int] = (4, 8, 16, 32),
    n_keys: int = 72,
    n_values: int = 4,
    control: str = "none",
) -> Promptset:
    """[first token] k1 v1 k2 v2 ... then keys again, each followed by a blank; the value of the last one is asked.

    n_items: lists; each is told with every number of pairs in `n_pairs`, the shorter ones part of the longer, in the
    same order and with the same question. A list is a cluster. Some of the list's other keys are asked before, as
    in `pair_recall`'s rows: the share of them that comes first is drawn evenly, the same at every length.
    The first ordinary ids of the vocabulary are the blank, the `n_keys` keys and the `n_values` values.
    control: `shuffled_values` puts the values of the told list at other keys by chance while the answer stays, and
    `unseen_key` asks a key that was never told: in both a reader is right as often as the answer's value stands in
    the list, (1 + (n - 1) / n_values) / n of n pairs. The lists are those of `none` with the same seed.
    The corrupt prompt has another value at the asked key. Labels: key, value, end (the asked key). Condition: n_pairs.
    Wrong answers: all other values. Facts: n_pairs, n_keys, n_values, control, chance (1 / n_values).
    Departs from Zoology: few values, which recur; one key is asked of each prompt; every slot holds a key.
    Raises: BadInput for numbers of pairs that are no list of different numbers of at least 2, fewer keys than the
    longest list and one more, a vocabulary or a context that is too small.
    """
    place = "multi_query_recall"
    n_items = whole_number(f"{place}.n_items", n_items, 1)
    task, control = RecallTask(n_keys, n_values), one_of(f"{place}.control", control, CONTROLS)
    sizes = checked_sizes(f"{place}.n_pairs", n_pairs, n_keys - 1)
    ids = _ids(vocabulary, task, sizes[-1])
    rng = np.random.default_rng(seed)
    lists = [_drawn(np.random.default_rng(int(rng.integers(2**62))), task, sizes[-1]) for _ in range(n_items)]
    told = [_told(each, size, control, task) for each in lists for size in sizes]
    offset = 0 if vocabulary.first_id is None else 1
    keys = torch.tensor([key + offset for _, key, _ in told])
    rows = [begun(vocabulary, ids[np.array(row)].tolist()) for row, _, _ in told]
    labels = {"key": keys, "value": keys + 1, "end": torch.tensor([len(row) - 1 for row in rows])}
    answers = np.array([answer for _, _, answer in told])
    clean = padded(rows, labels)
    corrupt = clean.ids.clone()
    corrupt[torch.arange(len(rows)), keys + 1] = torch.tensor(ids[task.first_value + (answers + 1) % n_values])
    others = (answers[:, None] + np.arange(1, n_values)) % n_values
    return Promptset(
        clean,
        corrupt=type(clean)(corrupt, clean.lengths, labels),
        correct_ids=torch.tensor(ids[task.first_value + answers[:, None]]),
        wrong_ids=torch.tensor(ids[task.first_value + others]),
        clusters=torch.arange(n_items).repeat_interleave(len(sizes)),
        conditions={"n_pairs": torch.tensor(sizes * n_items, dtype=torch.float64)},
        facts={
            "n_pairs": sizes,
            "n_keys": n_keys,
            "n_values": n_values,
            "control": control,
            "bos_mode": vocabulary.bos_mode,
            "offset": offset,
            "chance": {"answer_accuracy": 1 / n_values},
        },
    )


def _ids(vocabulary: Vocabulary, task: RecallTask, longest: int) -> NDArray[np.int64]:
    """The vocabulary's id of each of the task's; raises BadInput where either is too small."""
    ids = vocabulary.ordinary_ids.numpy()
    if len(ids) < task.first_id:
        raise BadInput(
            f"multi_query_recall needs {task.first_id} ids and the vocabulary offers {len(ids)}: lower n_keys"
        )
    if context_of(longest) > vocabulary.context:
        raise BadInput(
            f"multi_query_recall makes prompts of up to {context_of(longest)} tokens and the model's context is "
            f"{vocabulary.context}: lower n_pairs"
        )
    return np.asarray(ids[: task.first_id])


def _drawn(rng: np.random.Generator, task: RecallTask, size: int) -> _List:
    keys = 1 + rng.permutation(task.n_keys)[: size + 1]
    rank = rng.permutation(size)
    values = rng.integers(task.n_values, size=size)
    return _List(keys[:size], values, rank, int(rank.argmin()), float(rng.random()), int(keys[size]))


def _told(each: _List, size: int, control: str, task: RecallTask) -> tuple[list[int], int, int]:
    """A row of the task's ids without the first token, where its asked key stands in it, and the value asked for."""
    part = np.flatnonzero(each.rank < size)
    own = np.random.default_rng([size, *each.keys.tolist()])  # so that the controls have the same queries
    others = own.permutation(part[part != each.asked])[: int(each.place * size)]
    values = each.values[own.permutation(part)] if control == "shuffled_values" else each.values[part]
    asked = each.unseen if control == "unseen_key" else each.keys[each.asked]
    pairs = np.stack([each.keys[part], values + task.first_value], axis=1).flatten()
    before = np.stack([each.keys[others], np.full(len(others), BLANK)], axis=1).flatten()
    at = 2 * int(np.flatnonzero(part == each.asked)[0])
    return [*pairs.tolist(), *before.tolist(), int(asked)], at, int(each.values[each.asked])
