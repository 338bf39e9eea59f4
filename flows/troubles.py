"""How a run of a study can end badly, each with its own exit code; imports nothing heavy, for the command line."""

from __future__ import annotations

from typing import Any, ClassVar

from mneme.errors import MnemeError

_NAMED = 10  # more are counted


class RunTroubled(MnemeError):
    """Everything is delivered, published and reported, and something is wrong; `outcome` is what the study returns."""

    state: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str, outcome: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.outcome = outcome


class TrialsFailed(RunTroubled):
    """Some trials failed; the others are delivered and published."""

    state = "trials failed"


class ScoresMoved(RunTroubled):
    """Numbers lie apart from those of the run before, by more than their intervals allow."""

    state = "scores moved"
    exit_code = 3


class PromisesBroken(RunTroubled):
    """Rows of the warehouse break what its views promise."""

    state = "promises broken"
    exit_code = 4


def troubles_of(
    outcome: dict[str, Any], failed: list[tuple[str, str]], broken: list[str], moved: list[dict[str, Any]]
) -> RunTroubled | None:
    """What to raise after a run, None when all is well; of several troubles the gravest, and the sentence says all.

    `failed` holds label and error of each failed trial, `broken` sentences, `moved` rows of `mart.drift`.
    """
    found: list[tuple[type[RunTroubled], str]] = []
    if failed:
        found.append((TrialsFailed, _failed_sentence(outcome, failed)))
    if broken:
        found.append((PromisesBroken, f"{len(broken)} broken promises of the warehouse: {'; '.join(broken)}"))
    if moved:
        found.append((ScoresMoved, _moved_sentence(outcome, moved)))
    return found[0][0](". ".join(sentence for _, sentence in found), outcome) if found else None


def _failed_sentence(outcome: dict[str, Any], failed: list[tuple[str, str]]) -> str:
    first, error = failed[0]
    others = f"; also {_named([label for label, _ in failed[1:]])}" if failed[1:] else ""
    n_trials = sum(outcome["trials"].values())
    return (
        f"{len(failed)} of {n_trials} trials of {outcome['study']} failed, the others are delivered; "
        f"the first, {first}: {error}{others}"
    )


def _moved_sentence(outcome: dict[str, Any], moved: list[dict[str, Any]]) -> str:
    trials: dict[str, dict[str, Any]] = {}
    for row in moved:
        trials.setdefault(row["trial_id"], row)
    return (
        f"{len(moved)} numbers in {len(trials)} trials of {outcome['study']} moved by more than their intervals allow"
        f" since the run before: {_named([_moved_trial(row) for row in trials.values()])}; see mart.drift"
    )


def _moved_trial(row: dict[str, Any]) -> str:
    variant = "" if row["variant"] == "primary" else f"[{row['variant']}]"
    step = "" if row["step"] is None else f"@{row['step']}"
    where = "" if row["head"] is None else f" L{row['layer']}H{row['head']}"
    numbers = f"{_number(row['previous_value'])} -> {_number(row['value'])}"
    model = f"{row['model']}{_seed(row['model_seed'])}{step}"
    promptset = f"{row['promptset']}{_seed(row['promptset_seed'])}"
    return f"{model} / {promptset} / {row['probe']}{variant} ({row['measure']}{where} {numbers})"


def _seed(seed: int | None) -> str:
    return "" if seed is None else f"[{seed}]"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _number(value: float | None) -> str:
    return "NULL" if value is None else f"{value:.4g}"
