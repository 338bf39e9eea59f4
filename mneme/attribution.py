"""Direct logit attribution: the logit difference as a sum of what every component writes to the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mneme.batch import Batch
from mneme.capturing import capture, head_weights, require_structure
from mneme.errors import BadInput, NotApplicable
from mneme.model import LanguageModel
from mneme.readouts import answers_of, mean_weights
from mneme.structure import LayerParts, first_of
from mneme.unembedding import widened


@torch.no_grad()
def direct_logit_attribution(
    lm: LanguageModel, ids: Tensor | Batch, correct_ids: Tensor, wrong_ids: Tensor
) -> dict[str, Tensor]:
    """What each component adds to logit[correct] - logit[wrong] at the last real position, with norms frozen.

    Of several correct or wrong answers the mean logit counts, as in the readout `logit_difference`.

    Returns "heads" [item layer head], "mlps" [item layer], "attention_bias" [item layer] (output projection biases and
    norm offsets after attention), "embed" [item], "norm_bias" [item], "unembed_bias" [item], and "total" [item], the
    model's own difference (before a cap on the logits). The parts sum to the total, which is checked. Unit: logits.
    Also known as DLA. Source: METHODS 8a; Elhage et al. 2021.
    Shape: correct_ids, wrong_ids [item] or [item answer] int64, -1 = no further answer. Raises: BadInput when an answer
    is correct and wrong, or an item has none on a side; NotApplicable where the model's parts are not found, a norm is
    not linear once frozen, or the sum does not hold.
    """
    batch = lm.batch(ids)
    correct, wrong = answers_of(correct_ids.to(lm.device), "correct"), answers_of(wrong_ids.to(lm.device), "wrong")
    if bool(((correct[:, :, None] == wrong[:, None]) & (correct[:, :, None] >= 0)).any()):
        raise BadInput("direct logit attribution needs correct answers that differ from the wrong ones in every prompt")
    parts = require_structure(lm).parts
    rows = _rows(lm, batch)
    direction, offset = frozen_direction(lm, rows.final_input, correct, wrong)
    heads, biases = zip(*(_heads(lm, part, rows, layer, direction) for layer, part in enumerate(parts)), strict=True)
    found = {
        "heads": torch.stack(heads, dim=1),
        "attention_bias": torch.stack(biases, dim=1),
        "mlps": (rows.mlps * direction[:, None]).sum(dim=-1),
        "embed": (rows.embed * direction).sum(dim=-1),
        **offset,
    }
    total = found.pop("total")
    _check_sum(lm, found, total)
    return found | {"total": total}


class _Rows:
    """Rows at the last real position: what each part wrote, what each attention projected, what entered the norm."""

    def __init__(self, batch: Batch) -> None:
        self.items = torch.arange(len(batch), device=batch.ids.device)
        self.last = batch.lengths - 1
        self.shape = batch.ids.shape
        self.mlp_list: list[Tensor] = []
        self.projected: list[Tensor] = []
        self.embed = torch.empty(0)
        self.final_input = torch.empty(0)
        self.z = torch.empty(0)

    def keep(self, rows: list[Tensor], scale: float = 1.0) -> Callable[..., None]:
        """A forward hook that keeps the rows of a module's output."""

        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            states = first_of(output).reshape(*self.shape, -1)
            rows.append(widened(states[self.items, self.last]) * scale)

        return hook

    @property
    def mlps(self) -> Tensor:
        """[item layer d_model]"""
        return torch.stack(self.mlp_list, dim=1)


def _rows(lm: LanguageModel, batch: Batch) -> _Rows:
    rows = _Rows(batch)
    with ExitStack() as stack:
        for part in require_structure(lm).parts:
            if part.attention_write is None or part.mlp_write is None:
                raise NotApplicable(f"{lm.name}: what its layers add to the residual stream was not found")
            stack.callback(part.mlp_write.register_forward_hook(rows.keep(rows.mlp_list, part.write_scale)).remove)
            stack.callback(part.attention.register_forward_hook(rows.keep(rows.projected)).remove)
        trace = capture(lm, batch, ["z", "residual"])
    residual = widened(trace["residual"][rows.items, :, rows.last])
    rows.embed, rows.final_input = residual[:, 0], residual[:, -1]
    rows.z = trace["z"][rows.items, :, :, rows.last]
    return rows


def _heads(lm: LanguageModel, part: LayerParts, rows: _Rows, layer: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Heads [item head] and output bias [item], through the norm after attention if there is one, its scale frozen."""
    writes = torch.einsum("bhw,hwd->bhd", widened(rows.z[:, layer]), widened(head_weights(lm, part)))
    gain, shift = part.write_scale * direction, torch.zeros(len(direction)).to(direction)
    assert part.projection is not None  # noqa: S101  head_weights refuses
    norm = part.attention_write
    if norm is not None and norm not in (part.attention, part.projection.module):
        shift = gain @ shift_of(norm, gain)
        gain = frozen_gain(norm, rows.projected[layer], gain)
    bias = part.projection.bias
    return (writes * gain[:, None]).sum(dim=-1), shift + (0.0 if bias is None else gain @ widened(bias))


def frozen_gain(norm: nn.Module, given: Tensor, direction: Tensor) -> Tensor:
    """The gradient of norm(x) . direction with respect to x when the norm's scale stays what it is at `given`.

    Shape: given, direction [row width] -> [row width]. For LayerNorm and RMSNorm of any make: gain and scale are read
    off how the norm answers. Raises: NotApplicable for any other norm.
    """
    dtype = next((weights.dtype for weights in norm.parameters()), given.dtype)

    def answer(states: Tensor) -> Tensor:
        return widened(norm(states.to(dtype))).to(given) - shift_of(norm, given)

    output = answer(given)
    moved = answer(given + given.abs().mean())
    is_centred = float((moved - output).abs().max()) < 1e-3 * float(output.abs().max())
    core = given - given.mean(dim=-1, keepdim=True) if is_centred else given
    signs = torch.ones_like(given[:1])
    signs[:, 1::2] = -1
    unscaled = answer(signs) * signs * core  # the gain times the input, up to one factor a row
    factor = (unscaled * output).sum(dim=-1, keepdim=True) / (unscaled * unscaled).sum(dim=-1, keepdim=True)
    if not torch.allclose(unscaled * factor, output, atol=1e-3 * float(output.abs().max())):
        raise NotApplicable(f"{type(norm).__name__} is not linear once its scale is frozen, so parts do not add up")
    through = answer(signs) * signs * factor * direction
    return through - through.mean(dim=-1, keepdim=True) if is_centred else through


def shift_of(norm: nn.Module, states: Tensor) -> Tensor:
    """The bias of a norm of `states` [row width], 0 when it has none: [width]."""
    bias = getattr(norm, "bias", None)
    return states.new_zeros(states.shape[-1]) if bias is None else torch.as_tensor(bias).to(states)


def frozen_direction(
    lm: LanguageModel, final_input: Tensor, correct: Tensor, wrong: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """d(difference)/d(residual) [item d_model] with the final norm frozen, and the parts that no component writes.

    The difference is logit[correct] - logit[wrong], their means, read off the residual stream `final_input`
    [item d_model] as it enters the final norm. The parts, by name: "norm_bias" and "unembed_bias" [item], and "total"
    [item], the whole difference before a cap on the logits; direction . residual + both biases is the total.
    Raises: NotApplicable where the final norm or the unembedding was not found, or the norm is not linear once frozen.
    """
    head, norm = lm.hf.get_output_embeddings(), require_structure(lm).final_norm
    if norm is None or type(head) is not nn.Linear:
        raise NotApplicable(f"{lm.name}: its final norm or its unembedding was not found")
    normed = norm(final_input.to(lm.dtype))
    columns = torch.cat([correct, wrong], dim=1).clamp_min(0)
    logits = widened(lm.backbone.unembed(normed, columns))
    weights = torch.cat([mean_weights(correct), -mean_weights(wrong)], dim=1).to(logits)
    unembed = (widened(head.weight[columns]) * weights[:, :, None]).sum(dim=1)
    bias = torch.zeros(len(correct)) if head.bias is None else (widened(head.bias[columns]) * weights).sum(dim=1)
    total = (widened(normed) * unembed).sum(dim=-1) + bias.to(unembed)
    scale = _logit_scale(total, (logits * weights).sum(dim=1))
    direction = frozen_gain(norm, final_input, unembed) * scale
    norm_bias = unembed @ shift_of(norm, unembed) * scale
    return direction, {"norm_bias": norm_bias, "unembed_bias": bias.to(unembed) * scale, "total": total * scale}


def _logit_scale(ours: Tensor, theirs: Tensor) -> float:
    """The factor that the model puts on its logits (Cohere, Granite); 1 where it caps them instead."""
    factor = float((ours * theirs).sum() / (ours * ours).sum())
    return factor if torch.allclose(ours * factor, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())) else 1.0


def _check_sum(lm: LanguageModel, found: dict[str, Tensor], total: Tensor) -> None:
    parts = torch.cat([part.reshape(len(total), -1) for part in found.values()], dim=1)
    error = float((parts.sum(dim=1) - total).abs().max())
    if error > lm.parity.tolerance * max(1.0, float(parts.abs().max())):
        raise NotApplicable(
            f"{lm.name}: the parts of its logit difference miss it by {error:.1e}, so they mean nothing"
        )
