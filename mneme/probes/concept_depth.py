"""In which layer a concept can be read off the residual stream."""

from __future__ import annotations

import numpy as np
import torch

from mneme.arguments import whole_number
from mneme.batching import in_batches
from mneme.concepts import Concept, Plan, Reading, read_concept
from mneme.curve import Curve
from mneme.lenses import last_residual
from mneme.model import LanguageModel
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="fraction of prompts",
    low=0.0,
    high=1.0,
    curves={
        "accuracy": ("layer", "fraction of prompts", 0.0, 1.0),
        "control_accuracy": ("layer", "fraction of prompts", 0.0, 1.0),
        "shuffled_accuracy": ("layer", "fraction of prompts", 0.0, 1.0),
        "selectivity": ("layer", "fraction of prompts", -1.0, 1.0),
        "auc": ("layer", "area under the ROC curve", 0.0, 1.0),
    },
    source="Jin et al. 2024; Hewitt and Liang 2019; METHODS 17",
)
def concept_depth(  # noqa: PLR0913  what `measuring` gives, and what the YAML may set
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    concept: str = "concept",
    n_folds: int = 5,
    per_component: int = 10,
) -> dict[str, Curve]:
    """Held-out accuracy of a logistic regression on the residual stream at the last token of each prompt.

    x: layer: l is what enters layer l, n_layers what leaves the last one; 0 is the embedding alone, a baseline
    concept: condition that is 0 or 1; prompts of a cluster never lie on both sides of a fold
    n_folds: each prompt is judged by a readout fitted to the other folds: standardised there, penalty chosen there
    per_component: prompts fitted to for each feature at least; where the stream is wider, its main axes are kept
    accuracy, auc: of the concept; per prompt, right or not, and the share of the other label that it is ordered from
    control_accuracy: of the same readout, of a label drawn once for each `concept_key`, learnt from other prompts with
                      that key; selectivity: accuracy minus that, per prompt
    shuffled_accuracy: of the concept's labels dealt out anew
    Readable is not used: a patching or ablation must say whether the model uses it. Compare with an untrained model.
    Departs from METHODS 17: the residual stream, not the input behind a norm; accuracy and AUC, no F1.
    Raises: NotApplicable where the concept or `concept_key` is missing or out of balance, a prompt stands there twice,
            prompts or groups are too few, or the layers are not found.
    Source: METHODS 17
    """
    n_folds = whole_number("concept_depth.n_folds", n_folds, 2)
    per_component = whole_number("concept_depth.per_component", per_component, 1)
    rng = np.random.default_rng(probe_seed)
    plan = Plan.of(Concept.of(prompts, concept), n_folds, per_component, rng)

    def run(items: slice) -> torch.Tensor:
        return last_residual(lm, prompts.clean.select(items)).double().cpu()

    states = in_batches(lm, len(prompts), prompts.clean.ids.shape[1], run, progress).numpy()
    readings = [read_concept(states[:, layer], plan, rng) for layer in range(lm.n_layers + 1)]
    return _curves(readings)


def _curves(readings: list[dict[str, Reading]]) -> dict[str, Curve]:
    right = {task: np.stack([each[task].right for each in readings], axis=1) for task in readings[0]}
    values = {
        "accuracy": right["concept"],
        "control_accuracy": right["control"],
        "shuffled_accuracy": right["shuffled"],
        "selectivity": right["concept"] - right["control"],
        "auc": np.stack([each["concept"].placed for each in readings], axis=1),
    }
    layers = torch.arange(len(readings), dtype=torch.float64)
    return {measure: Curve(layers, torch.from_numpy(each)) for measure, each in values.items()}
