"""TransformerLens 4.3's own sweeps over the same weights and prompts; runs in the environment of the peers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from transformer_lens import patching as lens
from transformer_lens.model_bridge import TransformerBridge

from benchmarks import material
from benchmarks.measured import Measured, best_of


def patching(folder: Path, shape: str, shared: int, n_cells: int | None) -> Measured:
    """`get_act_patch_attn_head_out_all_pos`, or a sample of the cells of `..._by_pos` scaled to all of them."""
    where = material.model_folder(shape, folder)
    bridge = TransformerBridge.boot_transformers(str(where), hf_model=material.stock_model(where), device="cpu")
    n_layers, n_heads = bridge.cfg.n_layers, bridge.cfg.n_heads
    base, donor, correct, wrong = material.pairs(bridge.cfg.d_vocab, shared)
    items = torch.arange(material.N_ITEMS)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[items, -1, correct] - logits[items, -1, wrong]).mean()

    with torch.no_grad():
        _, cache = bridge.run_with_cache(donor)
        if n_cells is None:
            found, seconds, cpu = best_of(
                1, lambda: lens.get_act_patch_attn_head_out_all_pos(bridge, base, cache, metric)
            )
            return Measured(found.numpy(), seconds, cpu)
        cells = pd.DataFrame(material.sampled_cells(n_layers, n_heads, n_cells), columns=["layer", "pos", "head"])

        def run() -> torch.Tensor:
            return lens.generic_activation_patch(
                bridge, base, cache, metric, lens.layer_pos_head_vector_patch_setter, "z", index_df=cells
            )

        found, seconds, cpu = best_of(1, run)
    factor = n_layers * n_heads * material.N_TOKENS / n_cells
    return Measured(found.numpy(), seconds * factor, cpu * factor, {"cells_run": n_cells})
