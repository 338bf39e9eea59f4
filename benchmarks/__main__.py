"""Runs every case, each contender in a process of its own, and prints ratios and equality: `make bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import material
from benchmarks.contender import CELLS
from benchmarks.picture import draw

PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
RESULTS = Path(__file__).parent / "results"
# case, rival, wanted ratio, what it is
CASES = [
    ("patch-gpt2-0", "transformer_lens", 2.7, "head patching, all positions, no shared prefix"),
    ("patch-gpt2-10", "transformer_lens", 7.0, "head patching, all positions, shared prefix 10"),
    ("patch-gpt2-10-each", "transformer_lens", 20.0, "head x position patching, shared prefix 10"),
    ("patch-llama-0", "transformer_lens", 2.7, "head patching, grouped-query Llama, no shared prefix"),
    ("patch-llama-10", "transformer_lens", 7.0, "head patching, grouped-query Llama, shared prefix 10"),
    ("ablate-gpt2", "counted work", 1 / 1.3, "zero ablation of every head"),
    ("rows-16384", "plain forward", 1 / 1.3, "32 attention rows of a 16k-token prompt"),
    ("entries-16384", "plain forward", 1 / 1.3, "attention to the token before, 16k-token prompt"),
]


def main() -> None:
    """Run the cases named on the command line, or all."""
    wanted = sys.argv[1:] or [case for case, *_ in CASES]
    RESULTS.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case, rival, at_least, what in CASES:
            if case in wanted:
                rows.append(compared(case, rival, at_least, what, Path(scratch)))
                print(line(rows[-1]), flush=True)
    (RESULTS / "results.json").write_text(json.dumps(rows, indent=1))
    (RESULTS / "results.md").write_text(table(rows))
    draw(rows, RESULTS / "results.png")
    print(f"written: {RESULTS}/results.json, results.md, results.png")


def compared(case: str, rival: str, at_least: float, what: str, scratch: Path) -> dict[str, Any]:
    """One row of the table; a rival that is not installed leaves its columns empty."""
    ours, values = run(case, "mneme", scratch)
    row = {"case": case, "what": what, "against": rival, "at_least": at_least, "ours": ours}
    if rival == "counted work":
        return row | {"ratio": 1 / ours["over_counted_work"], "over_counted_work": ours["over_counted_work"]}
    if rival == "transformer_lens" and not PEERS.is_file():
        return row | {"skipped": f"no TransformerLens at {PEERS}: `make peers` installs it"}
    theirs, their_values = run(case, rival.replace(" ", "_"), scratch)
    if case.endswith("-each"):
        cells = material.sampled_cells(values.shape[0], values.shape[1], CELLS)
        values = np.array([values[layer, head, position] for layer, position, head in cells])
    row |= {"theirs": theirs, "ratio": theirs["seconds"] / ours["seconds"]}
    row["cpu_ratio"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
    row["memory_ratio"] = ours["peak_mib"] / theirs["peak_mib"]
    if "over_counted_work" in ours:
        row["over_counted_work"] = ours["over_counted_work"]
    return row | {"largest_difference": float(np.abs(values - their_values).max())}


def run(case: str, contender: str, scratch: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Numbers and values of one contender's process."""
    out = scratch / f"{case}-{contender}"
    python = PEERS if contender == "transformer_lens" else Path(sys.executable)
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
    command = [str(python), "-m", "benchmarks.contender", case, contender, str(scratch), str(out)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(out.with_suffix(".json").read_text()), np.load(out.with_suffix(".npy"))


def line(row: dict[str, Any]) -> str:
    """A row as one line of text."""
    if "skipped" in row:
        return f"{row['what']}: {row['ours']['seconds']:.1f} s; {row['skipped']}"
    difference = f", largest difference {row['largest_difference']:.1e}" if "largest_difference" in row else ""
    verdict = "reached" if row["ratio"] >= row["at_least"] else "NOT reached"
    return (
        f"{row['what']}: {row['ours']['seconds']:.1f} s, {row['ratio']:.2f} x against {row['against']} "
        f"(wanted {row['at_least']:.2f}: {verdict}){difference}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    head = "| what | against | ours, s | theirs, s | ratio | wanted | over counted work | memory | largest difference |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row["what"], row["against"], row["ours"]["seconds"], row.get("theirs", {}).get("seconds")]
        cells += [row.get(name) for name in ("ratio", "at_least", "over_counted_work", "memory_ratio")]
        texts = [each if isinstance(each, str) else "-" if each is None else f"{each:.3g}" for each in cells]
        texts.append(f"{row['largest_difference']:.1e}" if "largest_difference" in row else "-")
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
