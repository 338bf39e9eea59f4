"""Edge attribution beside the bare runs that it is made of, one case a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import material
from benchmarks.measured import Measured, best_of
from mneme.edge_scoring import edge_scores
from mneme.model import LanguageModel, load_model
from mneme.readouts import Readout, ReadRows, logit_difference, read_hidden


def attribution(folder: Path, shape: str, steps: int) -> Measured:
    """All edges of 16 pairs: EAP where steps is 0, else EAP-IG over embeddings.

    EAP's gradients are taken at the donor prompts, as TransformerLens does; values [source slot] are those of the pairs
    that it runs too, 0 where there is no edge.
    """
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, 0)
    readout = logit_difference(correct, wrong)
    method = "eap-ig-inputs" if steps else "eap"

    def run() -> torch.Tensor:
        scores = edge_scores(lm, donor, base, readout, method, max(1, steps), keep_items=True)
        assert scores.items is not None
        return scores.items[: material.N_EDGE_PAIRS].mean(dim=0).nan_to_num(0.0)

    found, seconds, cpu = best_of(2, run)
    return Measured(np.empty(0) if steps else found.numpy(), seconds, cpu, {"steps": steps})


def bare_runs(folder: Path, shape: str, steps: int) -> Measured:
    """Two forwards, and `steps` times a forward and a backward pass from the readout to the embeddings."""
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, 0)
    readout = logit_difference(correct, wrong)

    def run() -> torch.Tensor:
        with torch.no_grad():
            for ids in (base, donor):
                lm.backbone.hidden(ids)
        for _ in range(steps):
            gradient(lm, base, readout)
        return torch.empty(0)

    _, seconds, cpu = best_of(2, run)
    return Measured(np.empty(0), seconds, cpu, {"steps": steps})


def gradient(lm: LanguageModel, ids: torch.Tensor, readout: Readout) -> torch.Tensor:
    """The readout's gradient at the token embeddings, by a plain forward and backward pass of the stock model."""
    embeddings = lm.hf.get_input_embeddings()(ids).detach().requires_grad_()
    with torch.enable_grad():
        hidden = lm.backbone.module(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        where = ReadRows.of(readout, lm.batch(ids))
        values = read_hidden(lm, readout, hidden[:, -1:], torch.arange(len(ids)), where)
    return torch.autograd.grad(values.sum(), embeddings)[0]
