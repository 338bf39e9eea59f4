"""How many of the neurons that a text stirs are stirred at its function tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.batching import in_batches
from mneme.curve import Curve
from mneme.function_tokens import is_function_token, is_text, matched
from mneme.model import LanguageModel
from mneme.neurons import most_active, neuron_activations
from mneme.probe import probe
from mneme.progress import Progress, silent
from mneme.promptset import Promptset


@probe(
    level="curve",
    unit="share of neurons",
    low=0.0,
    high=1.0,
    curves={
        "function_coverage": ("layer", "share of neurons", 0.0, 1.0),
        "content_coverage": ("layer", "share of neurons", 0.0, 1.0),
    },
    min_tokens=2,
    source="Memory Retrieval and Consolidation in LLMs through Function Tokens, 2025; METHODS 19g",
)
def function_token_coverage(
    lm: LanguageModel,
    prompts: Promptset,
    *,
    probe_seed: int,
    progress: Progress = silent,
    coverage: float = 0.4,
    top_k: int = 16,
) -> dict[str, Curve]:
    """Share of a prompt's active neurons that are active at its function tokens, and at as many content tokens.

    A neuron of an MLP is active at a token when it is among the `top_k` of its layer there by absolute value: a
    stand-in for the features of a sparse autoencoder, and no such thing itself.
    x:      layer
    function_coverage, content_coverage: of the neurons that are active anywhere in the prompt's text, the share active
            at some function (content) token. Of the class with more tokens as many are drawn as the other has, since
            coverage grows with the number of tokens
    Range:  0 .. 1; NaN = the prompt has no token of one class
    Raises: BadInput for a top_k beyond the neurons; NotApplicable for a corpus under 100,000 tokens (see
            `function_token_loss`) and where the neurons are not found.
    Source: METHODS 19g; differs from it in: neurons instead of features, prompt by prompt, all function tokens instead
            of the ten most frequent
    """
    top_k = whole_number("function_token_coverage.top_k", top_k, 1)
    is_function, inside = is_function_token(prompts, coverage), is_text(prompts)
    generator = torch.Generator().manual_seed(probe_seed)
    drawn = torch.rand(inside.shape, generator=generator)
    classes = matched(is_function, inside & ~is_function, drawn)
    batch = lm.batch(prompts.clean)

    def run(items: slice) -> Tensor:
        part = batch.select(items)
        n_tokens = part.ids.shape[1]
        places = [each[items, :n_tokens].to(part.ids.device) for each in (inside, *classes)]
        shares = []
        for activations in neuron_activations(lm, part):
            active = most_active(
                activations, whole_number("function_token_coverage.top_k", top_k, 1, activations.shape[2])
            )
            counts = [(active & chosen[..., None]).any(dim=1).sum(dim=1) for chosen in places]
            shares.append(torch.stack([counts[1] / counts[0], counts[2] / counts[0]], dim=1))
        return torch.stack(shares, dim=2).cpu()

    found = in_batches(lm, len(batch), batch.ids.shape[1], run, progress)
    is_missing = ~(classes[0].any(dim=1) & classes[1].any(dim=1))
    found = found.masked_fill(is_missing[:, None, None], torch.nan)
    layers = torch.arange(lm.n_layers, dtype=torch.float64)
    return {"function_coverage": Curve(layers, found[:, 0]), "content_coverage": Curve(layers, found[:, 1])}
