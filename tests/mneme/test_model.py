"""Stock models load unchanged behind a gate that notices every missing feature."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mneme.batch import Batch
from mneme.errors import BadInput, NotApplicable, ParityError
from mneme.interception import AttentionCall, handled
from mneme.model import LanguageModel, load_model
from mneme.parity import run_gate
from mneme.patching import patch_heads
from tests.architectures import INSIDE, OUTSIDE, tiny


def without(name: str, call: AttentionCall) -> AttentionCall:
    """The call with one feature of it ignored."""
    if name in ("softcap", "s_aux", "scaling"):
        return replace(call, options=call.options | {name: None})
    if name == "window":
        causal = torch.ones(call.query.shape[2], call.key.shape[2], dtype=torch.bool).tril()
        return replace(call, mask=causal.expand(len(call.query), 1, -1, -1))
    if name == "groups":
        return replace(call, key=call.key.flip(1), value=call.value.flip(1))
    return replace(call, key=call.key.roll(1, dims=2))


def features(hf: object) -> set[str]:
    """Which features the attention calls of a model have: those that a wrong function could ignore."""
    lm = LanguageModel(hf, "tiny", None, "cpu")  # type: ignore[arg-type]
    found = {"order"}

    def note(call: AttentionCall) -> Tensor:
        width = call.query.shape[-1] ** -0.5
        facts = {
            "softcap": call.options.get("softcap") is not None,
            "s_aux": call.options.get("s_aux") is not None,
            "scaling": abs(call.scale - width) > 1e-6,
            "window": call.window is not None and call.key.shape[2] > call.window,
            "groups": 1 < call.key.shape[1] < call.query.shape[1],
        }
        found.update(name for name, is_there in facts.items() if is_there)
        return call.compute()

    with handled(lm.attention_modules, note):
        lm.logits(torch.arange(16)[None] + 3)
    return found


EXPECTED = {
    "gemma2": {"softcap", "window", "scaling", "groups", "order"},
    "gpt_oss": {"s_aux", "window", "groups", "order"},
    "mistral": {"window", "groups", "order"},
    "granite": {"scaling", "groups", "order"},
    "cohere2": {"window", "groups", "order"},
    "gpt2": {"order"},
    "gemma": {"order"},
}


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_the_gate_passes_and_fails_when_any_feature_is_switched_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = LanguageModel(tiny(name), name, None, "cpu")
    assert lm.attention
    assert lm.parity.layers_seen == lm.n_layers
    assert max(lm.parity.logits, lm.parity.rows, lm.parity.head) <= 1e-5
    there = features(lm.hf)
    assert EXPECTED.get(name, set()) <= there
    stock = AttentionCall.compute
    for feature in there:

        def broken(call: AttentionCall, feature: str = feature) -> Tensor:
            return stock(without(feature, call))

        monkeypatch.setattr(AttentionCall, "compute", broken)
        with pytest.raises(ParityError, match="differ from the stock model"):
            run_gate(tiny(name), 64)
        monkeypatch.undo()


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_the_parts_of_every_layer_are_found(name: str) -> None:
    lm = LanguageModel(tiny(name), name, None, "cpu")
    assert lm.structure is not None
    assert lm.structure.final_norm is not None
    for parts in lm.structure.parts:
        assert None not in (parts.projection, parts.attention_write, parts.mlp_write)


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_models_outside_the_interface_are_behavior_only_and_say_so(name: str) -> None:
    lm = LanguageModel(tiny(name), name, None, "cpu")
    assert not lm.attention
    assert lm.parity.logits <= 1e-5
    for question in (lambda: lm.n_heads, lambda: lm.windows, lambda: lm.attention_modules):
        with pytest.raises(NotApplicable, match="only behavior probes apply"):
            question()


def saved(folder: Path, name: str = "qwen2", change: Callable[[dict[str, Tensor]], None] | None = None) -> Path:
    tiny(name).save_pretrained(folder)
    if change is not None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_folder_loads_with_its_facts_and_no_forward_counted(tmp_path: Path) -> None:
    lm = load_model(saved(tmp_path / "m"))
    assert (lm.n_layers, lm.n_heads, lm.n_kv_heads, lm.head_width) == (3, 4, 2, 4)
    assert (lm.d_model, lm.vocab_size, lm.context, lm.windows) == (16, 40, 64, (None, None, None))
    assert lm.forwards == 0
    assert lm.tokenizer is None
    assert not lm.hf.training
    assert not any(weights.requires_grad for weights in lm.hf.parameters())
    lm.logits(torch.tensor([[3, 4]]))
    lm.logits(torch.tensor([[3, 4]]))
    assert lm.forwards == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_every_dtype_passes_the_gate(tmp_path: Path, dtype: str) -> None:
    lm = load_model(saved(tmp_path / "m"), dtype=dtype)
    assert str(lm.dtype) == f"torch.{dtype}"
    assert lm.parity.logits <= lm.parity.tolerance


def test_our_logits_are_the_stock_logits_with_padding(tmp_path: Path) -> None:
    lm = load_model(saved(tmp_path / "m"))
    batch = Batch(torch.arange(16).reshape(2, 8) + 3, torch.tensor([8, 5]))
    ours = lm.logits(batch)
    lm.hf.set_attn_implementation("eager")
    theirs = lm.hf(input_ids=batch.ids, attention_mask=batch.padding, use_cache=False).logits
    assert torch.allclose(ours[0], theirs[0], atol=1e-5)
    assert torch.allclose(ours[1, :5], theirs[1, :5], atol=1e-5)


def test_damaged_weights_are_refused_by_name(tmp_path: Path) -> None:
    def poison(weights: dict[str, Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan

    def remove(weights: dict[str, Tensor]) -> None:
        del weights["model.layers.1.mlp.up_proj.weight"]

    with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.up_proj\.weight in .*/nan hold NaN"):
        load_model(saved(tmp_path / "nan", change=poison))
    with pytest.raises(BadInput, match=r"lacks the weights model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(saved(tmp_path / "less", change=remove))


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    for wrong, sentence in (({"dtype": "float8"}, "unknown dtype"), ({"device": "tpu"}, "not available here")):
        with pytest.raises(BadInput, match=sentence):
            load_model(folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="has no revision"):
        load_model(folder, revision="main")
    with pytest.raises(BadInput, match="does not exist"):
        load_model(tmp_path / "nowhere")
    lm = load_model(folder)
    with pytest.raises(BadInput, match=r"must lie in 0\.\.39"):
        lm.logits(torch.tensor([[40]]))
    with pytest.raises(BadInput, match="65 tokens exceed the 64"):
        lm.logits(torch.full((1, 65), 3))


def test_a_model_in_training_mode_is_refused_and_so_is_one_with_a_single_part_that_drops_out() -> None:
    hf = tiny("gpt2")
    lm = LanguageModel(hf, "mine", None, "cpu")
    hf.transformer.h[1].mlp.dropout.train()
    with pytest.raises(BadInput, match=r"mine, transformer.h.1.mlp.dropout, is in training mode, where dropout is on"):
        lm.logits(torch.tensor([[3]]))
    hf.train()
    with pytest.raises(BadInput, match="mine is in training mode, where dropout is on: call eval"):
        patch_heads(lm, torch.tensor([[3]]), torch.tensor([[4]]), lambda logits: logits[:, 0])
    with pytest.raises(BadInput, match="mine is in training mode"):
        LanguageModel(hf, "mine", None, "cpu")
    hf.eval()
    assert torch.equal(lm.logits(torch.tensor([[3]])), lm.logits(torch.tensor([[3]])))


def test_a_model_with_quantised_weights_is_refused_by_name(tmp_path: Path) -> None:
    hf = tiny("llama")
    folder = tmp_path / "model"
    hf.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="quantised by bitsandbytes"):
        load_model(folder)
    layer = hf.model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter((layer.weight * 100).to(torch.int8), requires_grad=False)
    with pytest.raises(BadInput, match=r"quantised weights \(model.layers.1.mlp.up_proj.weight is torch.int8\)"):
        LanguageModel(hf, "mine", None, "cpu")


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertLMHeadModel"]}))
    hf = tiny("gpt2")
    stock = type(hf).forward

    def looking_ahead(self: object, input_ids: Tensor, **options: object) -> object:
        output = stock(self, input_ids=input_ids, **options)  # type: ignore[arg-type]
        output.logits = output.logits + input_ids[:, -1:, None]
        return output

    hf.forward = looking_ahead.__get__(hf)
    with pytest.raises(BadInput, match="is not causal"):
        LanguageModel(hf, "ahead", None, "cpu")


def test_two_models_in_two_threads_do_not_see_each_other() -> None:
    lms = [LanguageModel(tiny(name), name, None, "cpu") for name in ("gpt2", "llama")]
    ids = torch.arange(12)[None] + 3
    alone = [lm.logits(ids) for lm in lms]
    seen: list[set[int]] = [set(), set()]
    wrong: list[str] = []

    def work(which: int) -> None:
        lm, owner = lms[which], {id(module) for module in lms[which].attention_modules}

        def zeroing(call: AttentionCall) -> Tensor:
            seen[which].add(id(call.module))
            return torch.zeros_like(call.compute())

        for turn in range(30):
            if (turn + which) % 2:
                with handled(lm.attention_modules, zeroing):
                    lm.logits(ids)
            elif not torch.equal(lm.logits(ids), alone[which]):
                wrong.append(lm.name)
        if not seen[which] <= owner:
            wrong.append("foreign call")

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(seen)


SHARED = Path(__file__).parents[3] / "shared" / "models" / "stories260k"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared model stories260k is not beside this checkout")
def test_a_real_model_loads_with_its_tokenizer() -> None:
    lm = load_model(SHARED)
    assert lm.parity.logits < 1e-5
    ids = torch.tensor([lm.tokenizer("Once upon a time, there was a little")["input_ids"]])
    best = int(lm.logits(ids)[0, -1].argmax())
    assert lm.tokenizer.decode([best]).strip() in ("girl", "boy", "g", "b")
