"""What a run imports and reads sooner or later: the seconds it takes are spent once, before the runs are forked."""

from importlib import import_module

for _name in (
    "matplotlib.pyplot",
    "mlflow",
    "pandera.polars",
    "torch",
    "transformers",
    "flows.cli.app",
    "flows.cli.plan_table",
    "flows.cli.progress",
    "flows.cli.summary",
    "flows.study",
    "mneme.circuit_rows",
    "mneme.claims",
    "mneme.model",
    "mneme.phase_change",
    "storage.mlflow_log",
    "storage.report.figures",
    "storage.report.page",
    "storage.validating",
    "tasks.measure",
    "tasks.report",
    "tasks.trace",
):
    import_module(_name)

import_module("storage.claim_queries").refuse_bad_claims("none", {})  # the views, and the columns of the marts
import_module("storage.identity").code_parts(["mneme.circuit_rows", "mneme.measuring", "mneme.probes.head_ablation"])
