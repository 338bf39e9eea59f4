"""A full disk, told from other faults and said in one sentence."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from mneme.errors import MnemeError

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEAST_BYTES = 32 * 2**20  # Prefect's own database and a small study
_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large", "database or disk is full")


class DiskFull(MnemeError):
    """Nothing more fits; what was stored before is whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(full_sentence(folder))


def is_full(error: Exception) -> bool:
    """Whether an error, of the system or of a library that passes its text on, means that nothing more fits."""
    if isinstance(error, DiskFull) or getattr(error, "errno", None) in _ERRNOS:
        return True
    return any(text in str(error) for text in _TEXTS)


def refuse_full_disk(folder: Path) -> None:
    """Raises DiskFull when not even the beginning of a study fits, before anything is begun."""
    if shutil.disk_usage(folder).free < _LEAST_BYTES:
        raise DiskFull(folder)


def full_sentence(folder: Path) -> str:
    """What the user reads."""
    return f"the disk under {folder} is full: free some space and run again; what was stored before is whole"
