"""Prefect's lock manager on kernel locks: a killed holder blocks nobody (one machine)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from prefect.locking.protocol import LockManager

_POLL_SECONDS = 0.05


class KernelLockManager(LockManager):
    """One empty file per key; the lock is the kernel's and goes with the process that holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, tuple[int, str]] = {}
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Path]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,  # noqa: ARG002
    ) -> bool:
        """Wait for the lock; False when `acquire_timeout` seconds pass. `hold_timeout` does not apply: holders die."""
        started = time.monotonic()
        while not self._try(key, holder):
            if acquire_timeout is not None and time.monotonic() - started >= acquire_timeout:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """`acquire_lock` without blocking the loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back; ValueError when `holder` does not hold it. Its file stays: unlinking would race."""
        with self._guard:
            held = self._held.get(key)
            if held is None or held[1] != holder:
                raise ValueError(f"no lock held by {holder} for {key}")
            del self._held[key]
            os.close(held[0])

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        with self._guard:
            if key in self._held:
                return True
            descriptor = self._open_locked(key)
            if descriptor is None:
                return True
            os.close(descriptor)
            return False

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` holds the lock."""
        with self._guard:
            held = self._held.get(key)
            return held is not None and held[1] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; False when `timeout` seconds pass."""
        started = time.monotonic()
        while self.is_locked(key):
            if timeout is not None and time.monotonic() - started >= timeout:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """`wait_for_lock` without blocking the loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)

    def _try(self, key: str, holder: str) -> bool:
        with self._guard:
            held = self._held.get(key)
            if held is not None:
                return held[1] == holder
            descriptor = self._open_locked(key)
            if descriptor is None:
                return False
            self._held[key] = (descriptor, holder)
            return True

    def _open_locked(self, key: str) -> int | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Prefect may pass the absolute path of the result as the key
        descriptor = os.open(self.folder / f"{Path(key).name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
