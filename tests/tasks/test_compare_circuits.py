"""Circuits compared from the store: what two searches share, with no model where none is exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mneme.batch import Batch
from mneme.circuit_findings import CircuitFindings
from mneme.promptset import Promptset
from storage.arrays import write_arrays
from storage.content import ContentStore
from storage.home import Home
from storage.promptset_files import write_promptset
from tasks.compare_circuits import overlap
from tests.found_circuits import EDGES, GRAPH, N_FOUND, N_TESTED, edges, findings

BODY = overlap._body  # the function without Prefect around it


def stored(home: Home, found: CircuitFindings, *, is_same_model: bool = False) -> dict[str, Any]:
    """A search as the flow hands it over: its items and its prompts in the store."""
    store = ContentStore(home.store)
    prompts = Promptset(Batch.of(torch.ones(N_FOUND + N_TESTED, 3, dtype=torch.int64)))
    items = store.put_file("items.safetensors", lambda path: write_arrays(found.arrays(), path))
    written = store.put(lambda folder: write_promptset(prompts, folder))
    about = {"search": "top-n", "ablation": "corrupt", "is_same_model": is_same_model}
    return about | {"items": {"object": items.to_json()}, "promptset": {"object": written.to_json()}}


def test_circuits_of_two_steps_are_compared_but_not_exchanged_so_that_no_model_is_loaded(tmp_path: Path) -> None:
    home = Home(tmp_path)
    later = findings(edges=torch.stack([edges(), edges(*EDGES[2:]), edges(*EDGES), GRAPH.legal]))
    own, others = stored(home, findings()), [stored(home, later), stored(home, findings())]
    value = BODY(home, own, others, {}, {}, 0)
    assert value["forwards"] == 0
    apart, same = value["rows"]
    assert [(row["selection"], row["level"], row["n_shared"]) for row in apart][:2] == [
        ("faithful", "edge", 0),
        ("faithful", "node", 0),
    ]
    assert [row["jaccard"] for row in same] == [1, 1, 1, 1]
    assert not any("cross_faithfulness" in row for row in (*apart, *same))


def test_a_search_without_a_circuit_has_no_rows_and_runs_no_model(tmp_path: Path) -> None:
    home = Home(tmp_path)
    none = findings(is_selected=torch.zeros(4, dtype=torch.bool))
    value = BODY(home, stored(home, none), [stored(home, findings(), is_same_model=True)], {}, {}, 0)
    assert value == {"rows": [[]], "forwards": 0}
