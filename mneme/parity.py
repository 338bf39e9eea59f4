"""The gate at load: our attention function must reproduce the stock model's logits, and its rows must explain Z."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mneme.errors import BadInput, NotApplicable, ParityError
from mneme.interception import NAME, AttentionCall, handled
from mneme.unembedding import Backbone, find_backbone

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
N_TOKENS = 32  # unless a window is slightly longer
LONGEST_WINDOW = 256


@dataclass(frozen=True)
class Parity:
    """What the gate measured: the largest difference over the largest stock value.

    logits: ours against the stock model's eager logits; rows: attention rows times values against Z; head: unembedded
    hidden states against the logits. layers_seen: layers that called our attention function.
    """

    logits: float
    rows: float
    head: float
    tolerance: float
    layers_seen: int


@dataclass
class Seen:
    """The attention calls of one forward: module, Z and facts by layer."""

    modules: dict[int, nn.Module] = field(default_factory=dict)
    shapes: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    calls: int = 0
    rows: float = 0.0
    unreadable: str | None = None

    def __call__(self, call: AttentionCall) -> Tensor:
        """Note the call, and check that its rows times its values are its Z."""
        z = call.compute()
        self.calls += 1
        self.modules[call.layer] = call.module
        self.shapes[call.layer] = (int(z.shape[2]), int(call.key.shape[1]), int(z.shape[3]))
        self.windows[call.layer] = call.window
        try:
            lengths = torch.full((len(z),), call.key.shape[2])
            ours = call.inputs(lengths).attend(call.value)
            self.rows = max(self.rows, relative_difference(ours, z))
        except (NotApplicable, BadInput) as error:
            self.unreadable = str(error)
        return z


@torch.no_grad()
def run_gate(hf: PreTrainedModel, context: int | None) -> tuple[Parity, Seen, Backbone]:
    """Compare the model under our attention function with the stock eager model, on seeded random tokens.

    Leaves the model on our function when every layer went through it, else on the stock implementation.
    Raises: ParityError beyond the tolerance of the dtype; BadInput when the model is not causal.
    """
    stock = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    ids = _gate_ids(hf, context)
    backbone, expected = find_backbone(hf, ids)
    tolerance = TOLERANCE[hf.dtype]
    if relative_difference(expected[1:, :-1], expected[:1, :-1]) > tolerance:
        raise BadInput(
            f"{type(hf).__name__} is not causal: a later token changes earlier logits; choose a causal model"
        )
    hf.set_attn_implementation(NAME)
    seen = Seen()
    with handled([module for module in hf.modules() if isinstance(getattr(module, "layer_idx", None), int)], seen):
        logits = hf(input_ids=ids, use_cache=False).logits
    hidden = backbone.hidden(ids)
    parity = Parity(
        logits=relative_difference(logits, expected),
        rows=seen.rows,
        head=relative_difference(backbone.unembed(hidden.flatten(0, 1)), logits.flatten(0, 1)),
        tolerance=tolerance,
        layers_seen=len(seen.modules),
    )
    if not seen.modules:
        hf.set_attn_implementation(stock)
    _judge(parity, type(hf).__name__)
    return parity, seen, backbone


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `theirs`; infinite when either is not finite."""
    difference = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp_min(1e-30)
    return float(difference) if bool(torch.isfinite(difference)) else float("inf")


def _judge(parity: Parity, name: str) -> None:
    for what, found in (("logits", parity.logits), ("attention rows", parity.rows), ("unembedding", parity.head)):
        if found > parity.tolerance:
            raise ParityError(
                f"{name}: our {what} differ from the stock model's by {found:.1e} of their size, "
                f"more than {parity.tolerance:.0e}: report this architecture, or use another model"
            )


def _gate_ids(hf: PreTrainedModel, context: int | None) -> Tensor:
    """Two seeded random prompts that differ in their last token alone, longer than a short window."""
    config = hf.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    wanted = window + 8 if isinstance(window, int) and N_TOKENS - 8 < window <= LONGEST_WINDOW else N_TOKENS
    n_tokens = min(wanted, context or wanted)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, n_tokens), generator=generator).repeat(2, 1)
    ids[1, -1] = (ids[1, -1] + 1) % config.vocab_size
    return ids.to(hf.device)
