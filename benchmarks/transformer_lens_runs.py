"""TransformerLens 4.3's own sweeps over the same weights and prompts; runs in the environment of the peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from transformer_lens import patching as lens
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patching as attribution

from benchmarks import material
from benchmarks.measured import Measured, best_of


def patching(folder: Path, shape: str, shared: int, positions: str | None) -> Measured:
    """What `get_act_patch_attn_head_out_all_pos` or `..._by_pos` runs, for a sample of its cells, scaled to all.

    Every cell costs one whole forward over all pairs, so time is in proportion to cells.
    """
    where = material.model_folder(shape, folder)
    bridge = TransformerBridge.boot_transformers(str(where), hf_model=material.stock_model(where), device="cpu")
    n_layers, n_heads = bridge.cfg.n_layers, bridge.cfg.n_heads
    base, donor, correct, wrong = material.pairs(bridge.cfg.d_vocab, shared)
    items = torch.arange(material.N_ITEMS)
    cells = pd.DataFrame(material.sampled_cells(n_layers, n_heads), columns=["layer", "pos", "head"])
    if positions is None:
        cells, setter = cells[["layer", "head"]], lens.layer_head_vector_patch_setter
    else:
        setter = lens.layer_pos_head_vector_patch_setter

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[items, -1, correct] - logits[items, -1, wrong]).mean()

    def run() -> torch.Tensor:
        return lens.generic_activation_patch(bridge, base, cache, metric, setter, "z", index_df=cells)

    with torch.no_grad():
        _, cache = bridge.run_with_cache(donor)
        found, seconds, cpu = best_of(1, run)
    factor = n_layers * n_heads * (1 if positions is None else material.N_TOKENS) / len(cells)
    return Measured(found.numpy(), seconds * factor, cpu * factor, {"cells_run": len(cells), "scaled_by": factor})


def edges(folder: Path, shape: str) -> Measured:
    """`attribution_patch` of all edges, for some of the pairs, scaled to all: it runs them one by one.

    Values [source slot], sums over positions in our order: embeddings, then by layer heads and MLP; by layer queries,
    keys, values and MLP, then logits.
    """
    where = material.model_folder(shape, folder)
    stock = material.stock_model(where).requires_grad_()  # else its hooks see no gradient
    bridge = TransformerBridge.boot_transformers(str(where), hf_model=stock, device="cpu")
    n_layers, n_heads = bridge.cfg.n_layers, bridge.cfg.n_heads
    base, donor, correct, wrong = material.pairs(bridge.cfg.d_vocab, 0)
    config = attribution.EdgeAttributionConfig(granularity="edge")
    totals = torch.zeros(1 + n_layers * (n_heads + 1), 1 + n_layers * (3 * n_heads + 1))

    def run() -> torch.Tensor:
        totals.zero_()
        for pair in range(material.N_EDGE_PAIRS):

            def metric(logits: torch.Tensor, pair: int = pair) -> torch.Tensor:
                return logits[0, -1, correct[pair]] - logits[0, -1, wrong[pair]]

            some = slice(pair, pair + 1)
            found = attribution.attribution_patch(bridge, base[some], donor[some], metric, config)
            for (writer, reader), score in found.edge_scores.items():
                totals[source_of(writer, n_heads), slot_of(reader, n_heads)] += score / material.N_EDGE_PAIRS
        return totals

    found, seconds, cpu = best_of(1, run)
    factor = material.N_ITEMS / material.N_EDGE_PAIRS
    return Measured(found.numpy(), seconds * factor, cpu * factor, {"pairs_run": material.N_EDGE_PAIRS})


def circuits(folder: Path, shape: str) -> Measured:
    """`faithfulness` of one circuit on one pair, scaled to all circuits and pairs; values [1]: what is recovered."""
    where = material.model_folder(shape, folder)
    bridge = TransformerBridge.boot_transformers(str(where), hf_model=material.stock_model(where), device="cpu")
    n_layers, n_heads = bridge.cfg.n_layers, bridge.cfg.n_heads
    base, donor, correct, wrong = material.pairs(bridge.cfg.d_vocab, 0)
    kept = material.drawn_circuits(n_layers, n_heads)[material.COMPARED_CIRCUIT]
    nodes = [attribution.Node("embed", 0)]
    slots = []
    for layer in range(n_layers):
        nodes += [attribution.Node("attn_head_out", 0, layer, head) for head in range(n_heads)]
        nodes.append(attribution.Node("mlp_out", 0, layer))
        parts = ("q_input", "k_input", "v_input")
        slots += [attribution.Node(part, 0, layer, head) for part in parts for head in range(n_heads)]
        slots.append(attribution.Node("mlp_in", 0, layer))
    slots.append(attribution.Node("logits", 0, n_layers - 1))
    circuit = [
        (replace(nodes[source], position=position), replace(slots[slot], position=position))
        for source, slot in kept.nonzero().tolist()
        for position in range(base.shape[1])
    ]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, correct[0]] - logits[0, -1, wrong[0]]

    def run() -> torch.Tensor:
        return torch.tensor([attribution.faithfulness(bridge, base[:1], donor[:1], metric, circuit).recovered])

    found, seconds, cpu = best_of(1, run)
    factor = len(material.CIRCUIT_SHARES) * material.N_ITEMS
    return Measured(found.numpy(), seconds * factor, cpu * factor, {"circuits_run": 1, "scaled_by": factor})


def source_of(node: attribution.Node, n_heads: int) -> int:
    """The place of a writer among our sources."""
    if node.kind == "embed":
        return 0
    return 1 + node.layer * (n_heads + 1) + (n_heads if node.kind == "mlp_out" else node.head)


def slot_of(node: attribution.Node, n_heads: int) -> int:
    """The place of a reader among our slots."""
    if node.kind == "logits":
        return -1
    start = node.layer * (3 * n_heads + 1)
    parts = ("q_input", "k_input", "v_input")
    return start + (3 * n_heads if node.kind == "mlp_in" else parts.index(node.kind) * n_heads + node.head)
