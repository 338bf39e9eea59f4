"""Settings that Prefect, MLflow, torch and malloc read at their first use: set before it, never over the user's own."""

from __future__ import annotations

import ctypes
import os

from storage.home import Home

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_GIB = 1 << 30


def prepare_environment(home: Home) -> None:
    """Point Prefect at the home and keep everything on this machine; what the user has set stays."""
    if not os.environ.get("PREFECT_API_URL", "x"):
        del os.environ["PREFECT_API_URL"]  # Prefect takes an empty address for a server that does not answer
    defaults = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_LOCAL_STORAGE_PATH": str(home.entries),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's own choice is 15, so that workers wait for whatever else runs
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "THP_MEM_ALLOC_ENABLE": "1",  # torch asks for huge pages
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free for the next ones, up to 1 GiB.

    It would give each back to the kernel, which clears the pages of the next: an eighth of a search for circuits.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _GIB)
        mallopt(_TRIM_THRESHOLD, _GIB)
