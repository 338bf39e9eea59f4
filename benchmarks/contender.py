"""One contender in one process: `python -m benchmarks.contender CASE CONTENDER FOLDER OUT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measured import Measured

N_THREADS = 2


def main() -> None:
    """Run and save."""
    case, contender, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(N_THREADS)
    measured(case, contender, folder).save(out)


def measured(case: str, contender: str, folder: Path) -> Measured:
    """What a case's name says.

    patch-SHAPE-SHARED[-each], ablate-SHAPE, rows|entries-SHAPE-TOKENS, grid-SHAPE-TOKENS[-said], retrieve-SHAPE-TOKENS,
    edges-SHAPE-STEPS (0: EAP), circuits-SHAPE, edgememory-SHAPE-TOKENS or growth.
    """
    name, *words = case.split("-")
    return theirs(name, words, folder) if contender == "transformer_lens" else ours_of(name, words, folder, contender)


def theirs(name: str, words: list[str], folder: Path) -> Measured:
    """TransformerLens's run of a case."""
    from benchmarks import transformer_lens_runs  # noqa: PLC0415  lives in the environment of the peers

    if name == "edges":
        return transformer_lens_runs.edges(folder, words[0])
    if name == "circuits":
        return transformer_lens_runs.circuits(folder, words[0])
    return transformer_lens_runs.patching(folder, words[0], int(words[1]), "each" if "each" in words else None)


def ours_of(name: str, words: list[str], folder: Path, contender: str) -> Measured:
    """Mneme's run of a case, or the plain runs beside it."""
    from benchmarks import edges, growth, ours, retrieval  # noqa: PLC0415  live in ours

    def edges_of() -> Measured:
        run = edges.attribution if contender == "mneme" else edges.bare_runs
        return run(folder, words[0], int(words[1]))

    def of_one_prompt() -> Measured:
        run = retrieval.one_prompt if name == "retrieve" else ours.long_prompt
        return run(folder, words[0], int(words[1]), name if contender == "mneme" else "plain")

    runs: dict[str, Callable[[], Measured]] = {
        "growth": growth.growth,
        "patch": lambda: ours.patching(folder, words[0], int(words[1]), "each" if "each" in words else None),
        "ablate": lambda: ours.zero_ablation(folder, words[0]),
        "edges": edges_of,
        "circuits": lambda: edges.circuits(folder, words[0]),
        "edgememory": lambda: edges.memory(folder, words[0], int(words[1]), contender),
        "grid": lambda: retrieval.grid(folder, words[0], int(words[1]), is_said="said" in words),
    }
    return runs.get(name, of_one_prompt)()


if __name__ == "__main__":
    main()
