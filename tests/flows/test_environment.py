"""What a process is given before it computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ALLOCATES = """
import resource, sys
from pathlib import Path
from flows.environment import prepare_environment
from storage.home import Home
if sys.argv[2] == "prepared":
    prepare_environment(Home(Path(sys.argv[1])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has mallopt")
def test_memory_that_was_freed_is_taken_again_without_asking_the_kernel(tmp_path: Path) -> None:
    def faults(how: str) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", _ALLOCATES, str(tmp_path), how], capture_output=True, text=True, check=True
        )
        return int(ran.stdout)

    once = 64 * 2**20 // 4096
    assert faults("prepared") < 2 * once
    assert faults("bare") > 2 * faults("prepared")
