"""What a run imports sooner or later: the seconds it takes are spent once, before the runs are forked."""

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
    "mneme.model",
    "storage.mlflow_log",
    "storage.validating",
    "tasks.measure",
    "tasks.report",
    "tasks.trace",
):
    import_module(_name)
