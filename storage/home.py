"""Where Mneme keeps everything: the folder MNEME_HOME and the rooms in it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mneme.errors import BadInput


@dataclass(frozen=True)
class Home:
    """The paths of one MNEME_HOME; `root` is absolute."""

    root: Path

    @property
    def results(self) -> Path:
        """What readers open: a published copy, replaced atomically."""
        return self.root / "results.duckdb"

    @property
    def warehouse(self) -> Path:
        """The writer's own database."""
        return self.root / "warehouse" / "warehouse.duckdb"

    @property
    def lake(self) -> Path:
        """The durable truth: one Parquet file per table and delivery."""
        return self.root / "lake"

    @property
    def store(self) -> Path:
        """Content-addressed files and the stage entries that refer to them."""
        return self.root / "store"

    @property
    def entries(self) -> Path:
        """What each stage computed: Prefect's results, one small JSON file per cache key."""
        return self.store / "entries"

    @property
    def training(self) -> Path:
        """Unfinished training, one folder per model; each goes when its model is stored."""
        return self.root / "training"

    @property
    def locks(self) -> Path:
        """Kernel locks; their files stay empty."""
        return self.root / "locks"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's tracking store."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifact folder."""
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        """Prefect's own home: a display, never the record."""
        return self.root / "prefect"

    @property
    def runs(self) -> Path:
        """How the last run of each study went: notes, never results."""
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        """The HTML report of each study."""
        return self.root / "reports"


def find_home() -> Home:
    """The home named by MNEME_HOME, else `.mneme` in the working directory; nothing is made."""
    return Home(Path(os.environ.get("MNEME_HOME") or ".mneme").expanduser().absolute())


def writable_home() -> Home:
    """The home, made if missing; raises BadInput with one sentence when it cannot be written."""
    home = find_home()
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home.root, prefix=".write-test-"):
            pass
    except OSError as error:
        raise BadInput(
            f"cannot write to the home {home.root} ({error.strerror}): set MNEME_HOME to a folder that you may write"
        ) from error
    return home
