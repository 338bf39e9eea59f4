"""Promptsets: generated once per spec, seed and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.content import ContentStore
from storage.home import Home
from storage.specs import PromptsetSpec
from tasks.stage import Value, object_of, stage


@stage("prepare")
def prepare(home: Home, spec: dict[str, Any], seed: int, folder: str, bos_mode: str) -> Value:
    """Build a promptset for the tokenizer and context of the model in `folder`, and store it.

    `content` hashes what a model and a probe see. A generator that makes no sense for this model gives
    `not_applicable`, its sentence.
    """
    from mneme.errors import NotApplicable
    from mneme.promptset import promptsets
    from mneme.vocabulary import read_vocabulary
    from storage.promptset_files import promptset_hash, read_rows, write_promptset

    asked = PromptsetSpec.model_validate(spec)
    rows = {"rows": read_rows(Path(asked.file))} if asked.file else {}
    vocabulary = read_vocabulary(Path(folder), bos_mode)
    try:
        promptset = promptsets.get(asked.generator).build(vocabulary, seed=seed, **asked.parameters, **rows)
    except NotApplicable as reason:
        return {"not_applicable": str(reason)}
    reference = ContentStore(home.store).put(lambda target: write_promptset(promptset, target))
    return {
        "object": reference.to_json(),
        "content": promptset_hash(promptset),
        "n_items": len(promptset),
        "n_positions": int(promptset.clean.ids.shape[1]),
        "is_paired": promptset.corrupt is not None,
        "facts": dict(promptset.facts),
        "dropped": dict(promptset.dropped),
    }


def promptset_folder(home: Home, value: Value) -> Path:
    """The stored promptset's folder, checked; raises Damaged."""
    return ContentStore(home.store).folder(object_of(value))
