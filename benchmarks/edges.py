"""Edge attribution beside the bare runs that it is made of, one case a process."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import torch

from benchmarks import material
from benchmarks.measured import Measured, best_of
from mneme.capturing import head_weights, require_structure
from mneme.circuit_faithfulness import faithfulness
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.edge_scoring import edge_scores
from mneme.model import LanguageModel, load_model
from mneme.readouts import Readout, ReadRows, logit_difference, read_hidden
from mneme.restart import record_baseline


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


def circuits(folder: Path, shape: str) -> Measured:
    """Faithfulness of circuits of ten sizes on 16 pairs; values [1]: what the compared one recovers of the first."""
    lm = load_model(material.model_folder(shape, folder))
    base, donor, correct, wrong = material.pairs(lm.vocab_size, 0)
    graph = EdgeGraph.sized(lm.n_layers, lm.n_heads)
    masks = material.drawn_circuits(lm.n_layers, lm.n_heads)
    some = [Circuit(graph, edges, int(edges.sum())) for edges in masks]

    def run() -> torch.Tensor:
        found = faithfulness(lm, base, donor, logit_difference(correct, wrong), some)
        return ((found.items[:, material.COMPARED_CIRCUIT] - found.empty) / (found.whole - found.empty))[:1]

    found, seconds, cpu = best_of(2, run)
    return Measured(found.numpy(), seconds, cpu, {"circuits": len(some)})


def memory(folder: Path, shape: str, n_tokens: int, contender: str) -> Measured:
    """How far memory grows while the edges of one long pair are scored by EAP; `grown_mib`.

    The rival holds what it cannot do without: the change of every source at every position, as wide as the stream, and
    the graph of a plain forward, taken backwards.
    """
    lm = load_model(material.model_folder(shape, folder))
    n_tokens = n_tokens // 16 if material.IS_SMALL else n_tokens
    base, donor, correct, wrong = material.pairs(lm.vocab_size, 0, 1, n_tokens)
    readout = logit_difference(correct, wrong)
    sources = 1 + lm.n_layers * (lm.n_heads + 1)

    def run() -> torch.Tensor:
        if contender == "mneme":
            return edge_scores(lm, donor, base, readout).matrix
        changes = torch.empty(sources, n_tokens, lm.d_model)
        with torch.no_grad():
            _fill(lm, changes, donor, base)
        return gradient(lm, donor, readout) + 0.0 * changes.mean()

    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    _, seconds, cpu = best_of(1, run)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20
    tensor = sources * n_tokens * lm.d_model * lm.dtype.itemsize / 2**20
    return Measured(np.empty(0), seconds, cpu, {"grown_mib": grown, "edge_tensor_mib": tensor})


def _fill(lm: LanguageModel, changes: torch.Tensor, *pair: torch.Tensor) -> None:
    """What every source changes between two prompts, one layer after the other."""
    for sign, ids in zip((1.0, -1.0), pair, strict=True):
        changes.mul_(-1.0) if sign < 0 else changes.zero_()
        kept = record_baseline(lm, lm.batch(ids), lambda *_: None, with_mlps=True)
        changes[0] += kept.inputs[0][0]
        for layer, parts in enumerate(require_structure(lm).parts):
            start = 1 + layer * (lm.n_heads + 1)
            for head, weight in enumerate(head_weights(lm, parts)):
                changes[start + head] += kept.z[layer][0, :, head] @ weight
            changes[start + lm.n_heads] += kept.mlps[layer][0]
