"""Whether heads of another behavior, made to look at the wrong colors, repair the answer on colored objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.ablation import ablate_head_sets
from mneme.accuracy_readouts import answer_accuracy_readout
from mneme.arguments import number_between, one_of, whole_number
from mneme.controls import HeadSet, set_sizes
from mneme.errors import NotApplicable
from mneme.forced_attention import even_rows, force_attention
from mneme.head_harm import HeadSets
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

TARGETS = ("wrong", "correct")
WHO = "colored_objects_repair"


@probe(
    level="intervention",
    unit="fraction of right answers",
    low=-1.0,
    high=1.0,
    ranks_with="rank_by",
    effect_name="attention_forced_to_{target}",
    source="Merullo et al. 2023; METHODS 5c",
)
def colored_objects_repair(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    ranking: Ranking,
    *,
    probe_seed: int,
    progress: Progress = silent,
    target: str = "wrong",
    rank_by: str = "path_patching",  # noqa: ARG001  says whose items `ranking` holds
    rank_on: str | None = None,  # noqa: ARG001  says of which prompts
    ks: Sequence[int] = (1, 2, 4),
    n_draws: int = 20,
    least_accuracy: float = 1 / 3,
    most_accuracy: float = 0.9,
) -> dict[str, Tensor]:
    """Change of accuracy when heads attend, at the last token, to the wrong colors of the list alone, in equal shares.

    Unit:   fraction of right answers, forced minus free, larger = repaired; an answer is right where the correct color
            has a higher logit than every other color of the prompt, a tie is no credit
    Range:  -1 .. 1
    target: `wrong`, or `correct`: the same heads made to look at the correct color, which should hurt
    ks: the top k heads of the ranking, such as the inhibition heads of indirect objects, are forced together, beside
            `n_draws` random sets of the same layers; each head is forced alone too (effects)
    least_accuracy, most_accuracy: outside of these there is nothing to repair, or no behavior

    Returns: clean [item]; effects [item layer head]; k [k]; top_heads [rank 2]; set_effects [item k], control_effects
    [item k draw]; n_draws, n_distinct [k].
    Raises: NotApplicable for another promptset, an accuracy outside of the bounds, or too few heads that rank above
    0; BadInput for a bad parameter.
    Source: METHODS 5c. Departs from it: heads are the top ones of a ranking, not fixed ones; the correct color has to
    beat the prompt's other colors, not the vocabulary
    """
    one_of(f"{WHO}.target", target, TARGETS)
    sizes = sorted(set_sizes(WHO, ks))
    n_draws = whole_number(f"{WHO}.n_draws", n_draws, 1)
    labels = _labels(prompts, target)
    clean = _accuracy(lm, prompts)
    _require_room(lm, clean, _bounds(least_accuracy, most_accuracy))
    order, is_tested = ranking.chosen(prompts, probe_seed)
    mean = ranking.scores.double().nanmean(dim=0)
    order = [head for head in order if float(mean[head]) > 0]  # a head without effect leads nowhere
    if sizes[-1] > len(order):
        raise NotApplicable(
            f"{WHO}: {len(order)} heads of the ranking have a score above 0, fewer than the {sizes[-1]} of ks"
        )
    every: list[HeadSet] = [((layer, head),) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    alone = _forced(lm, prompts, labels, every, progress) - clean[:, None]
    sets = HeadSets(order, sizes, lm, n_draws, probe_seed)
    together = _forced(lm, prompts.select(is_tested), labels, sets.all) - clean[is_tested][:, None]
    return {
        "clean": clean,
        "effects": alone.reshape(-1, lm.n_layers, lm.n_heads),
        "top_heads": torch.tensor(order[: sizes[-1]]),
        **sets.arrays(together, is_tested),
    }


def _labels(prompts: Promptset, target: str) -> list[str]:
    """The labels of the colors to look at."""
    names = prompts.clean.labels
    wrong = sorted(each for each in names if each.startswith("wrong_color_"))
    if "correct_color" not in names or not wrong or "end" not in names or prompts.correct_ids is None:
        raise NotApplicable(f"{WHO} needs the promptset colored_objects, with the places of its colors and its answers")
    return wrong if target == "wrong" else ["correct_color"]


def _bounds(least: float, most: float) -> tuple[float, float]:
    low = number_between(f"{WHO}.least_accuracy", least, 0.0, 1.0)
    return low, number_between(f"{WHO}.most_accuracy", most, low, 1.0 + 1e-9)


def _accuracy(lm: LanguageModel, prompts: Promptset) -> Tensor:
    """1 where the correct color wins: [item]."""
    return ablate_head_sets(lm, prompts.clean, answer_accuracy_readout(prompts, WHO), [()]).cpu()[:, 0]


def _require_room(lm: LanguageModel, clean: Tensor, bounds: tuple[float, float]) -> None:
    right, n_prompts = float(clean.mean()), len(clean)
    if not bounds[0] - 1e-9 <= right <= bounds[1]:
        why = "there is nothing to repair" if right > bounds[1] else "the model does not do the task"
        raise NotApplicable(
            f"{WHO}: {lm.name} answers {right:.3f} of {n_prompts} prompts right, outside of {bounds[0]:.3g} .. "
            f"{bounds[1]:.3g}: {why}"
        )


def _forced(
    lm: LanguageModel, prompts: Promptset, labels: Sequence[str], sets: Sequence[HeadSet], progress: Progress = silent
) -> Tensor:
    """1 where the correct color wins with the heads of a set forced: [item set]."""
    rows = even_rows(prompts.clean, labels)
    readout = answer_accuracy_readout(prompts, WHO)
    return force_attention(lm, prompts.clean, readout, sets, rows, "end", progress=progress).cpu()
