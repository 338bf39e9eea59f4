"""A promptset comes back from disk as it was, and its hash sees all that a model or a probe sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mneme.batch import Batch
from mneme.promptset import Promptset
from storage.promptset_files import promptset_hash, read_promptset, write_promptset


def prompts() -> Promptset:
    """Two pairs of different lengths with everything that a promptset may have."""
    lengths = torch.tensor([3, 2])
    labels = {"end": lengths - 1}
    return Promptset(
        clean=Batch(torch.tensor([[5, 6, 7], [8, 9, 0]]), lengths, labels),
        corrupt=Batch(torch.tensor([[5, 6, 8], [8, 7, 0]]), lengths),
        correct_ids=torch.tensor([[1, 2], [3, -1]]),
        wrong_ids=torch.tensor([[4], [5]]),
        clusters=torch.tensor([0, 1]),
        facts={"period": 2},
        texts=("a", "b"),
        dropped={"too long": 3},
        conditions={"depth": torch.tensor([0.1, 1.0], dtype=torch.float64)},
    )


def test_a_promptset_comes_back_as_it_was(tmp_path: Path) -> None:
    write_promptset(prompts(), tmp_path)
    found = read_promptset(tmp_path)
    assert promptset_hash(found) == promptset_hash(prompts())
    assert found.conditions["depth"].tolist() == [0.1, 1.0]
    assert (found.texts, found.dropped, found.facts) == (("a", "b"), {"too long": 3}, {"period": 2})
    assert torch.equal(found.clean.labels["end"], prompts().clean.labels["end"])


def test_the_hash_sees_each_part() -> None:
    base = prompts()
    changed = [
        replace(base, conditions={"depth": torch.tensor([0.1, 0.9], dtype=torch.float64)}),
        replace(base, conditions={"length": base.conditions["depth"]}),
        replace(base, conditions={}),
        replace(base, wrong_ids=torch.tensor([[4], [6]])),
        replace(base, clusters=torch.tensor([0, 0])),
        replace(base, facts={"period": 3}),
        replace(base, corrupt=None),
        replace(base, clean=Batch(base.clean.ids, base.clean.lengths, {"start": base.clean.labels["end"]})),
    ]
    hashes = {promptset_hash(each) for each in [base, *changed]}
    assert len(hashes) == len(changed) + 1


def test_padding_is_no_content() -> None:
    base = prompts()
    padded = Batch(torch.tensor([[5, 6, 7], [8, 9, 4]]), base.clean.lengths, base.clean.labels)
    assert promptset_hash(replace(base, clean=padded)) == promptset_hash(base)
