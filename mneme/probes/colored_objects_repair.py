"""Whether heads of another behavior, made to look at the wrong colors, repair the answer on colored objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mneme.accuracy_readouts import answer_accuracy_readout
from mneme.arguments import one_of, whole_number
from mneme.color_repair import TARGETS, bounds_of_accuracy, color_labels, forced_readout, heads_to_force, require_room
from mneme.controls import HeadSet, set_sizes
from mneme.head_harm import HeadSets
from mneme.head_order import Ranking
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset

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
            `n_draws` random sets of the same layers; each head is forced alone too (effects). Heads that rank at 0 or
            below are none: a k beyond the others is left out
    least_accuracy, most_accuracy: outside of these there is nothing to repair, or no behavior

    Returns: clean [item]; effects [item layer head]; k [k]; top_heads [rank 2]; set_effects [item k], control_effects
    [item k draw]; n_draws, n_distinct [k].
    Raises: NotApplicable for another promptset, an accuracy outside of the bounds, or fewer heads that rank
    above 0 than any of ks; BadInput for a bad parameter.
    Source: METHODS 5c. Departs from it: heads are the top ones of a ranking, not fixed ones; the correct color has to
    beat the prompt's other colors, not the vocabulary
    """
    one_of(f"{WHO}.target", target, TARGETS)
    asked = sorted(set_sizes(WHO, ks))
    n_draws = whole_number(f"{WHO}.n_draws", n_draws, 1)
    labels = color_labels(prompts, target, WHO)
    readout = answer_accuracy_readout(prompts, WHO)
    clean = forced_readout(lm, prompts, labels, readout, [()])[:, 0]
    require_room(lm, clean, bounds_of_accuracy(least_accuracy, most_accuracy, WHO), WHO)
    order, sizes, is_tested = heads_to_force(ranking, prompts, asked, probe_seed, WHO)
    every: list[HeadSet] = [((layer, head),) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    alone = forced_readout(lm, prompts, labels, readout, every, progress) - clean[:, None]
    sets, tested = HeadSets(order, sizes, lm, n_draws, probe_seed), prompts.select(is_tested)
    together = forced_readout(lm, tested, labels, answer_accuracy_readout(tested, WHO), sets.all)
    together = together - clean[is_tested][:, None]
    return {
        "clean": clean,
        "effects": alone.reshape(-1, lm.n_layers, lm.n_heads),
        "top_heads": torch.tensor(order[: sizes[-1]]),
        **sets.arrays(together, is_tested),
    }
