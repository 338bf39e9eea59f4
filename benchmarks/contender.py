"""One contender in one process: `python -m benchmarks.contender CASE CONTENDER FOLDER OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

N_THREADS = 2
CELLS = 96  # of the sweep by position that TransformerLens runs; the rest is extrapolated


def main() -> None:
    case, contender, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(N_THREADS)
    name, *words = case.split("-")
    if contender == "transformer_lens":
        from benchmarks import transformer_lens_runs  # noqa: PLC0415  lives in the environment of the peers

        by_position = CELLS if "each" in words else None
        transformer_lens_runs.patching(folder, words[0], int(words[1]), by_position).save(out)
        return
    from benchmarks import ours  # noqa: PLC0415  lives in ours

    if name == "patch":
        ours.patching(folder, words[0], int(words[1]), "each" if "each" in words else None).save(out)
    elif name == "ablate":
        ours.zero_ablation(folder, words[0]).save(out)
    else:
        ours.long_prompt(folder, int(words[0]), name if contender == "mneme" else "plain").save(out)


if __name__ == "__main__":
    main()
