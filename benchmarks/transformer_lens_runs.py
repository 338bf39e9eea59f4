"""TransformerLens 4.3's own sweeps over the same weights and prompts; runs in the environment of the peers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from transformer_lens import patching as lens
from transformer_lens.model_bridge import TransformerBridge

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
