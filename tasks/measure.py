"""One probe in one trial: items from a stored trace, or from the model itself."""

from __future__ import annotations

from typing import Any

from storage.content import ContentStore
from storage.home import Home
from tasks.models import batch_sizes, loaded
from tasks.narrator import Narration
from tasks.prepare import promptset_folder
from tasks.stage import Value, object_of, stage


@stage("measure")
def measure(  # noqa: PLR0913  a stage's inputs are its identity
    home: Home,
    probe: str,
    parameters: dict[str, Any],
    probe_seed: int,
    model: Value,
    promptset: Value,
    trace: Value | None,
    ranking: Value | None,
    is_ranked_elsewhere: bool,
    how: dict[str, str],
) -> Value:
    """Run a probe: from `trace` with no forward pass when it is given, else live, or from the prompts alone.

    The items go to the store. `ranking` holds the items whose heads an intervention takes, `is_ranked_elsewhere`
    whether they are those of other prompts; `how` holds dtype, device and label.
    """
    from mneme.errors import NotApplicable
    from mneme.head_order import Ranking
    from mneme.measuring import measure as measured
    from mneme.probe import probes
    from storage.arrays import read_arrays, write_arrays
    from storage.promptset_files import read_promptset

    store = ContentStore(home.store)
    prompts = read_promptset(promptset_folder(home, promptset))
    stored = None if trace is None else read_arrays(store.file(object_of(trace)))
    given: dict[str, Any] = {"trace": stored, "probe_seed": probe_seed}
    lm = None
    before = 0
    member = probes.get(probe)
    if trace is None and member.reads != "prompts":
        lm = loaded(home, model, how["dtype"], how["device"])
        before = lm.forwards
        given["lm"] = lm
    if ranking is not None:
        scores = read_arrays(store.file(object_of(ranking)))["scores"]
        given["ranking"] = Ranking(scores, is_elsewhere=is_ranked_elsewhere)
    progress = Narration(f"measure: {how['label']}")
    try:
        items = measured(member, parameters, prompts, progress=progress, **given)
    except NotApplicable as reason:
        return {"not_applicable": str(reason)}
    reference = store.put_file("items.safetensors", lambda path: write_arrays(items, path))
    ran = {} if lm is None else {"forwards": lm.forwards - before, "items_per_forward": batch_sizes(lm)}
    # what the trace cost is kept with the items: a delivery made anew from them must say the same
    read = {} if trace is None else {"traced": {name: trace[name] for name in ("seconds", "pass_forwards")}}
    return {"object": reference.to_json(), "forwards": 0, **ran, **read}
