"""TransformerLens's own edge attribution and faithfulness for a saved model, run by its own environment: FOLDER OUT."""

import sys

import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patching as attribution
from transformers import AutoModelForCausalLM

from benchmarks.transformer_lens_runs import slot_of, source_of


def main() -> None:
    folder, out = sys.argv[1:3]
    torch.set_num_threads(1)
    prompts = {name: torch.from_numpy(array) for name, array in np.load(f"{folder}/prompts.npz").items()}
    hf = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_()
    bridge = TransformerBridge.boot_transformers(folder, hf_model=hf, device="cpu")
    n_heads, n_layers, kept = bridge.cfg.n_heads, bridge.cfg.n_layers, prompts["kept"]
    n_items, n_positions = prompts["base"].shape
    by_edge, by_head = torch.zeros(n_items, n_positions, *kept.shape), torch.zeros(n_items, n_layers, n_heads)
    recovered = []
    for item in range(n_items):
        correct, wrong = int(prompts["correct"][item]), int(prompts["wrong"][item])

        def metric(logits: torch.Tensor, correct: int = correct, wrong: int = wrong) -> torch.Tensor:
            return logits[0, -1, correct] - logits[0, -1, wrong]

        base, donor = (prompts[name][item : item + 1] for name in ("base", "donor"))
        config = attribution.EdgeAttributionConfig(granularity="edge")
        edges = attribution.attribution_patch(bridge, base, donor, metric, config).edge_scores
        places = {edge: (source_of(edge[0], n_heads), slot_of(edge[1], n_heads)) for edge in edges}
        for edge, (source, slot) in places.items():
            by_edge[item, edge[0].position, source, slot] += edges[edge]
        for node, score in attribution.attribution_patch(bridge, base, donor, metric).node_scores.items():
            if node.kind == "attn_head_out":
                by_head[item, node.layer, node.head] += score
        circuit = [edge for edge, place in places.items() if kept[place]]
        recovered.append(attribution.faithfulness(bridge, base, donor, metric, circuit).recovered)
    np.savez(out, edges=by_edge.numpy(), heads=by_head.numpy(), recovered=np.array(recovered))


if __name__ == "__main__":
    main()
