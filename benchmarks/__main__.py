"""Runs every case, each contender in a process of its own, and prints ratios and equality: `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import growth, material
from benchmarks.picture import draw

PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
# case, rival, wanted ratio, what it is; the first ones matter most
CASES = [
    ("patch-gpt2-10", "transformer_lens", 7.0, "head patching, all positions, shared prefix 10"),
    ("patch-gpt2-0", "transformer_lens", 2.7, "head patching, all positions, no shared prefix"),
    ("patch-gpt2-10-each", "transformer_lens", 20.0, "head x position patching, shared prefix 10"),
    ("rows-llama-16384", "plain forward", 1 / 1.3, "32 attention rows, 16k-token prompt, Llama shape"),
    ("entries-llama-16384", "plain forward", 1 / 1.3, "attention to the token before, 16k-token prompt, Llama shape"),
    ("patch-llama-10", "transformer_lens", 7.0, "head patching, Llama shape, shared prefix 10"),
    ("patch-llama-0", "transformer_lens", 2.7, "head patching, Llama shape, no shared prefix"),
    ("patch-llama-10-each", "transformer_lens", 20.0, "head x position patching, Llama shape, shared prefix 10"),
    ("ablate-llama", "counted work", 1 / 1.3, "zero ablation of every head, Llama shape"),
    ("grid-llama-800", "counted work", 1 / 1.3, "retrieval score, 600 prompts of 320 to 800 tokens, Llama shape"),
    ("grid-llama-800-said", "counted work", None, "the same, 8 tokens decoded for each prompt"),
    ("retrieve-llama-8192", "plain forward", 1 / 1.3, "retrieval score of an 8k-token prompt, Llama shape"),
    ("edges-gpt2-0", "transformer_lens", 20.0, "EAP, all edges of 16 pairs"),
    ("edges-gpt2-5", "bare runs", 1 / 1.5, "EAP-IG, 5 steps, all edges of 16 pairs"),
    ("circuits-gpt2", "transformer_lens", 50.0, "faithfulness of circuits of 10 sizes, 16 pairs"),
    ("edgememory-llama32-512", "edge tensor", 1.0, "memory of EAP, 512 tokens, Llama shape of 32 heads"),
    ("edgememory-llama32-2048", "edge tensor", 1.0, "memory of EAP, 2k tokens, Llama shape of 32 heads"),
    ("edgememory-llama32-4096", "edge tensor", 1.0, "memory of EAP, 4k tokens, Llama shape of 32 heads"),
    ("growth", "its smallest size", None, "how head patching grows"),
    ("ablate-gpt2", "counted work", 1 / 1.3, "zero ablation of every head"),
    ("rows-gpt2long-2048", "plain forward", 1 / 1.3, "32 attention rows, 2k-token prompt"),
    ("entries-gpt2long-2048", "plain forward", 1 / 1.3, "attention to the token before, 2k-token prompt"),
]


class Failed(Exception):
    """A contender's process failed; the other cases go on."""


def main() -> None:
    """Run the cases named on the command line, or all; rows of other cases that were measured before stay."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(case for case, *_ in CASES))
    parser.add_argument("--small", action="store_true", help="tiny shapes: shows that the cases run, measures nothing")
    options = parser.parse_args()
    unknown = set(options.cases) - {case for case, *_ in CASES}
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}: there are {', '.join(case for case, *_ in CASES)}")
    results = Path(__file__).parent / "results" / ("small" if options.small else "")
    results.mkdir(parents=True, exist_ok=True)
    os.environ[material.SMALL] = "1" if options.small else "0"
    kept = results / "results.json"
    rows = {row["case"]: row for row in json.loads(kept.read_text())} if kept.is_file() else {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for case, rival, at_least, what in CASES:
            if case in options.cases or not options.cases:
                since, load = time.perf_counter(), os.getloadavg()[0]
                try:
                    row = compared(case, rival, Path(scratch)) | {"what": what, "at_least": at_least}
                except Failed as failure:
                    failures.append(case)
                    print(failure, flush=True)
                    continue
                rows[case] = row | {"case_seconds": time.perf_counter() - since, "load": load}
                print(line(rows[case]), flush=True)
                write([rows[each] for each, *_ in CASES if each in rows], results)
    print(f"written: {results}/results.json, results.md, results.png")
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")


def compared(case: str, rival: str, scratch: Path) -> dict[str, Any]:
    """One row of the table; a rival that is not installed leaves its columns empty."""
    ours, values = run(case, "mneme", scratch)
    row = {"case": case, "against": rival, "ours": ours} | {
        name: ours[name] for name in ("over_counted_work", "executed_over_counted", "plain_spread") if name in ours
    }
    if case == "growth":
        return row
    if rival == "counted work":
        return row | {"ratio": 1 / ours["over_counted_work"]}
    if rival == "transformer_lens" and not PEERS.is_file():
        return row | {"skipped": f"no TransformerLens at {PEERS}: `make peers` installs it"}
    theirs, their_values = run(case, rival.replace(" ", "_"), scratch)
    if rival == "transformer_lens" and case.startswith("patch"):
        cells = material.sampled_cells(values.shape[0], values.shape[1], len(their_values))
        by_position = case.endswith("-each")
        values = np.array([values[layer, head][position if by_position else ...] for layer, position, head in cells])
    row |= {"theirs": theirs, "ratio": theirs["seconds"] / ours["seconds"]}
    if "grown_mib" in ours:  # memory is what is compared
        return row | {"ratio": theirs["grown_mib"] / ours["grown_mib"]}
    row["cpu_ratio"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
    row["memory_ratio"] = ours["peak_mib"] / theirs["peak_mib"]
    if values.size:  # a score is not what a plain forward gives
        row["largest_difference"] = float(np.abs(values - their_values).max())
    return row


def run(case: str, contender: str, scratch: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Numbers and values of one contender's process; plain forwards of the same prompt run once."""
    out = scratch / f"{case.partition('-')[2] if contender == 'plain_forward' else case}-{contender}"
    if not out.with_suffix(".json").is_file():
        python = PEERS if contender == "transformer_lens" else Path(sys.executable)
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
        command = [str(python), "-m", "benchmarks.contender", case, contender, str(scratch), str(out)]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{case}: {contender} failed\n{done.stderr[-2000:]}")
    return json.loads(out.with_suffix(".json").read_text()), np.load(out.with_suffix(".npy"))


def line(row: dict[str, Any]) -> str:
    """A row as one line of text."""
    parts = [f"{row['case']}: {row['ours']['seconds']:.3g} s"]
    if "ratio" in row:
        parts.append(f"{row['ratio']:.2f} x against {row['against']}{wanted(row['ratio'], row['at_least'])}")
    parts += [row["skipped"]] if "skipped" in row else []
    names = ("over_counted_work", "executed_over_counted", "memory_ratio", "plain_spread", "largest_difference")
    parts += [f"{name.replace('_', ' ')} {row[name]:.3g}" for name in names if name in row]
    return ", ".join(parts) + f"; the case took {row['case_seconds']:.0f} s, load before it {row['load']:.1f}"


def wanted(ratio: float, at_least: float | None) -> str:
    """Whether what was wanted is reached; nothing where nothing was."""
    return "" if at_least is None else f" (wanted {at_least:.2f}: {'reached' if ratio >= at_least else 'NOT reached'})"


def write(rows: list[dict[str, Any]], results: Path) -> None:
    """Rows as JSON, as a table and as a picture."""
    grown = [each for row in rows if row["case"] == "growth" for each in row["ours"]["rows"]]
    rows_of_table = [row for row in rows if row["case"] != "growth"]
    (results / "results.json").write_text(json.dumps(rows, indent=1))
    (results / "results.md").write_text(table(rows_of_table) + ("\n" + growth.table(grown) if grown else ""))
    draw(rows_of_table, grown, results / "results.png")


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = ("over_counted_work", "executed_over_counted", "memory_ratio", "plain_spread", "load")
    heads = ["what", "against", "ours, s", "theirs, s", "ratio", "wanted", "time over counted work"]
    heads += ["executed over counted", "memory", "plain spread", "load before", "largest difference"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["what"], row["against"], row["ours"]["seconds"], row.get("theirs", {}).get("seconds")]
        cells += [row.get(name) for name in ("ratio", "at_least", *names)]
        texts = [each if isinstance(each, str) else "-" if each is None else f"{each:.3g}" for each in cells]
        texts.append(f"{row['largest_difference']:.1e}" if "largest_difference" in row else "-")
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
