"""Colored objects with the attention of some heads forced onto colors of the list: what the probes of it share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mneme.arguments import number_between
from mneme.controls import Head
from mneme.errors import NotApplicable
from mneme.forced_attention import even_rows, force_attention
from mneme.head_changes import HeadSet
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.progress import Progress, silent
from mneme.promptset import Promptset
from mneme.readouts import Readout

TARGETS = ("wrong", "correct")


def color_labels(prompts: Promptset, target: str, who: str) -> list[str]:
    """The labels of the colors to look at; raises NotApplicable for another promptset."""
    names = prompts.clean.labels
    wrong = sorted(each for each in names if each.startswith("wrong_color_"))
    if "correct_color" not in names or not wrong or "end" not in names or prompts.correct_ids is None:
        raise NotApplicable(f"{who} needs the promptset colored_objects, with the places of its colors and its answers")
    return wrong if target == "wrong" else ["correct_color"]


def bounds_of_accuracy(least: float, most: float, who: str) -> tuple[float, float]:
    """Between which accuracies there is something to repair; raises BadInput for what is no share."""
    low = number_between(f"{who}.least_accuracy", least, 0.0, 1.0)
    return low, number_between(f"{who}.most_accuracy", most, low, 1.0 + 1e-9)


def require_room(lm: LanguageModel, clean: Tensor, bounds: tuple[float, float], who: str) -> None:
    """Raise NotApplicable, with the accuracy, where there is nothing to repair, or no behavior. Shape: clean [item]."""
    right, n_prompts = float(clean.mean()), len(clean)
    if not bounds[0] - 1e-9 <= right <= bounds[1]:
        why = "there is nothing to repair" if right > bounds[1] else "the model does not do the task"
        raise NotApplicable(
            f"{who}: {lm.name} answers {right:.3f} of {n_prompts} prompts right, outside of {bounds[0]:.3g} .. "
            f"{bounds[1]:.3g}: {why}"
        )


def heads_to_force(
    ranking: Ranking, prompts: Promptset, sizes: Sequence[int], seed: int, who: str
) -> tuple[list[Head], list[int], Tensor]:
    """Heads that rank above 0, the best first; the sizes that they can fill; which prompts test them: bool [item].

    A head without effect leads nowhere. Raises: NotApplicable where there are fewer than any of the sizes.
    """
    order, is_tested = ranking.chosen(prompts, seed)
    mean = ranking.scores.double().nanmean(dim=0)
    order = [head for head in order if float(mean[head]) > 0]
    if min(sizes) > len(order):
        raise NotApplicable(f"{who}: {len(order)} heads of the ranking have a score above 0, fewer than any of ks")
    return order, [k for k in sizes if k <= len(order)], is_tested


def forced_readout(
    lm: LanguageModel,
    prompts: Promptset,
    labels: Sequence[str],
    readout: Readout,
    sets: Sequence[HeadSet],
    progress: Progress = silent,
) -> Tensor:
    """The readout with the heads of a set looking at the labelled tokens alone, from the last one: [item set]."""
    rows = even_rows(prompts.clean, labels)
    return force_attention(lm, prompts.clean, readout, sets, rows, "end", progress=progress).cpu()
