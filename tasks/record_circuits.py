"""What MLflow gets of circuits: numbers, the selected one as JSON and as a drawn graph, figures of a whole study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.content import ContentStore
from storage.entries import Entries
from storage.home import Home
from storage.rows import rows
from storage.specs import TrialSpec
from tasks.stage import is_whole, object_of

TABLES = ("circuits", "circuit_edges", "circuit_measures")
UNIT = "logits"
Row = dict[str, Any]


def circuit_metrics(name: str, tables: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers of one search by metric name, from its rows in the lake; none where it is no search for circuits."""
    found: dict[str, float | None] = {}
    for row in tables["circuit_measures"].iter_rows(named=True) if "circuit_measures" in tables else ():
        about = row["ablation"] or row["level"]
        found[f"{name}/{row['measure']}" + (f"/{about}" if about else "")] = row["value"]
    for row in tables["circuits"].iter_rows(named=True) if "circuits" in tables else ():
        if row["is_selected"]:
            found[f"{name}/faithfulness/{row['ablation']}"] = row["faithfulness"]
            found[f"{name}/n_edges"] = float(row["n_edges"])
    return found


def circuit_drawing(trial: TrialSpec, tables: Mapping[str, Any]) -> bytes | None:
    """The selected circuit as an SVG file; None where none was selected."""
    from storage.report.circuit_picture import circuit_svg

    edges = tables.get("circuit_edges")
    kept = [] if edges is None else [row for row in edges.iter_rows(named=True) if row["is_selected"]]
    if not kept:
        return None
    named = [(row["source"], row["destination"], row["score"]) for row in kept]
    return circuit_svg(named, trial.label, UNIT).encode()


def circuit_document(home: Home, trial: TrialSpec, delivery_id: str) -> dict[str, Any] | None:
    """The selected circuit as JSON; None where none was selected, or its findings are no longer in the store."""
    from mneme.circuit_findings import CircuitFindings
    from mneme.circuit_json import circuit_to_json
    from storage.arrays import read_arrays

    entries = Entries(home.entries)
    items = entries.read(str((entries.read(f"deliver-{delivery_id}") or {}).get("items")))
    if items is None or not is_whole(home, items):
        return None
    found = CircuitFindings.of_arrays(read_arrays(ContentStore(home.store).file(object_of(items))))
    if found.selected is None:
        return None
    about = {"model": trial.model_label, "promptset": trial.promptset, "trial": trial.trial_id, "delivery": delivery_id}
    written: dict[str, Any] = json.loads(circuit_to_json(found.circuits[found.selected], found.matrix, about))
    return written


def study_circuits(home: Home, study: str, trial_ids: Sequence[str]) -> dict[str, list[Row]]:
    """A study's rows of `mart.circuits` and `mart.circuit_overlap`, as they are drawn; `checkpoints` between steps."""
    from storage.report.circuit_panels import CHECKPOINTS, CIRCUITS, OVERLAPS

    asked = list(trial_ids)
    compared = {"overlaps": OVERLAPS, "checkpoints": CHECKPOINTS}
    found = {name: rows(home, question, [study, asked]) for name, question in compared.items()}
    return {"circuits": rows(home, CIRCUITS, [asked]), **found}


def study_figures(study: str, found: Mapping[str, list[Row]]) -> dict[str, bytes]:
    """Faithfulness over size for each model, and what behaviors share and do for each other, as PNG files by path."""
    from storage.report.circuit_figures import faithfulness_png
    from storage.report.circuit_panels import behavior_matrices, checkpoint_matrices, faithfulness_panels

    figures = {
        f"pictures/faithfulness.{_in_a_path(model)}.png": faithfulness_png(
            panels, f"{study}: {model}, faithfulness over size"
        )
        for model, panels in faithfulness_panels(found["circuits"]).items()
    }
    for each in behavior_matrices(found["overlaps"]):
        about = _in_a_path(each.model) + ("" if each.variant == "primary" else f".{each.variant}")
        figures |= {f"pictures/{name}.{about}.png": png for name, png in each.figures().items()}
    for steps in checkpoint_matrices(found["checkpoints"]):
        about = _in_a_path(steps.title) + ("" if steps.variant == "primary" else f".{steps.variant}")
        figures[f"pictures/checkpoints.{about}.png"] = steps.figure()
    return figures


def _in_a_path(name: str) -> str:
    """`micro-gpt2.0` of `micro-gpt2[0]`, `micro-gpt2.0.ioi.1` of `micro-gpt2[0] ioi[1]`."""
    return name.replace("[", ".").replace("]", "").replace(" ", ".")
