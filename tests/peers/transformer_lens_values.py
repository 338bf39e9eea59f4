"""TransformerLens's own numbers for a saved model, run by its own environment: FOLDER OUT."""

import sys

import numpy as np
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM


def main() -> None:
    folder, out = sys.argv[1:3]
    torch.set_num_threads(1)
    prompts = np.load(f"{folder}/prompts.npz")
    base, donor = (torch.from_numpy(prompts[name]) for name in ("base", "donor"))
    correct, wrong = (torch.from_numpy(prompts[name]) for name in ("correct", "wrong"))
    items = torch.arange(len(base))
    hf = AutoModelForCausalLM.from_pretrained(folder).eval()
    bridge = TransformerBridge.boot_transformers(folder, hf_model=hf, device="cpu")
    layers, heads = range(bridge.cfg.n_layers), range(bridge.cfg.n_heads)

    def difference(logits: torch.Tensor) -> torch.Tensor:
        return logits[items, -1, correct] - logits[items, -1, wrong]

    def without(head: int):
        def hook(z: torch.Tensor, hook: object) -> torch.Tensor:
            z[:, :, head] = 0
            return z

        return hook

    with torch.no_grad():
        logits, cache = bridge.run_with_cache(base)
        _, donor_cache = bridge.run_with_cache(donor)
        patterns = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers], dim=1)
        patched = patching.get_act_patch_attn_head_out_all_pos(
            bridge, base, donor_cache, lambda found: difference(found).mean()
        )
        ablated = [
            difference(bridge.run_with_hooks(base, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", without(head))]))
            for layer in layers
            for head in heads
        ]
        results, labels = cache.stack_head_results(layer=-1, pos_slice=-1, apply_ln=True, return_labels=True)
        direction = bridge.W_U.T[correct] - bridge.W_U.T[wrong]
        attributed = (results[: len(layers) * len(heads)] * direction).sum(dim=-1)
    np.savez(
        out,
        logits=logits.numpy(),
        patterns=patterns.numpy(),
        patched=patched.numpy(),
        ablated=torch.stack(ablated, dim=1).numpy(),
        attributed=attributed.T.numpy(),
        labels=np.array(labels),
    )


if __name__ == "__main__":
    main()
