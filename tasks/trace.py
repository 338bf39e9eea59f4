"""Stored activations: one entry per model, promptset and site; several missing sites share one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from storage.content import ContentStore
from storage.entries import sealed, unsealed
from storage.files import write_text
from storage.home import Home
from tasks.models import batch_sizes, loaded
from tasks.narrator import Narration
from tasks.prepare import promptset_folder
from tasks.stage import Value, is_whole, stage

if TYPE_CHECKING:
    from mneme.probe import Site


@stage("trace")
def trace(
    home: Home, site: str, together: dict[str, str], model: Value, promptset: Value, how: dict[str, str]
) -> Value:
    """Capture `site` and, in the same pass, the other sites of `together` (site -> key), which wait for their stage.

    `how` holds dtype, device and label.
    """
    waiting = _take_waiting(home, together[site])
    if waiting is not None:
        return waiting
    from mneme.tracing import trace_sites
    from storage.promptset_files import read_promptset

    lm = loaded(home, model, how["dtype"], how["device"])
    before = lm.forwards
    prompts = read_promptset(promptset_folder(home, promptset))
    sites = cast("list[Site]", sorted(together))
    captured = trace_sites(lm, prompts, sites, progress=Narration(f"trace: {how['label']} / {site}"))
    passes = lm.forwards - before
    values: dict[str, Value] = {
        name: {**_stored(home, name, arrays), "pass_forwards": passes} for name, arrays in captured.items()
    }
    for name, value in values.items():
        if name != site:
            write_text(_waiting_path(home, together[name]), json.dumps(sealed({**value, "forwards": 0})))
    return {**values[site], "forwards": passes, "items_per_forward": batch_sizes(lm)}


def _stored(home: Home, site: str, arrays: dict[str, Any]) -> Value:
    from storage.arrays import write_arrays

    store = ContentStore(home.store)
    reference = store.put_file("site.safetensors", lambda path: write_arrays(arrays, path))
    return {"object": reference.to_json(), "site": site}


def _waiting_path(home: Home, key: str) -> Path:
    return home.store / "waiting" / f"{key}.json"


def _take_waiting(home: Home, key: str) -> Value | None:
    path = _waiting_path(home, key)
    try:
        value = unsealed(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return value if is_whole(home, value) else None
