"""A model folder is judged by its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mneme.errors import BadInput
from mneme.weights import SINGLE, read_folder

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 16,
    "vocab_size": 32,
    "max_position_embeddings": 64,
}


def model_folder(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, folder / SINGLE)
    return folder


def sharded_folder(folder: Path) -> Path:
    model_folder(folder)
    (folder / SINGLE).rename(folder / "model-1.safetensors")
    save_file({"c": torch.zeros(3)}, folder / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_facts_come_from_the_config(tmp_path: Path) -> None:
    facts = read_folder(model_folder(tmp_path / "m"))
    assert (facts.n_layers, facts.n_heads, facts.n_kv_heads) == (2, 4, 2)
    assert (facts.d_model, facts.vocab_size, facts.context) == (16, 32, 64)
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.tokenizer_sha256 is None


def test_a_gpt2_config_with_its_own_words_is_understood(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    config = {"architectures": ["GPT2LMHeadModel"], "n_layer": 3, "n_head": 2, "n_embd": 8, "n_positions": 9}
    (folder / "config.json").write_text(json.dumps(config))
    facts = read_folder(folder)
    assert (facts.n_layers, facts.n_heads, facts.n_kv_heads, facts.d_model, facts.context) == (3, 2, 2, 8, 9)


def test_equal_files_hash_alike_and_one_changed_weight_does_not(tmp_path: Path) -> None:
    one, two = read_folder(model_folder(tmp_path / "1")), read_folder(model_folder(tmp_path / "2"))
    assert one.weights_sha256 == two.weights_sha256
    assert one.config_sha256 == two.config_sha256
    save_file({"a": torch.full((2, 3), 7.0), "b": torch.ones(4, dtype=torch.bfloat16)}, tmp_path / "2" / SINGLE)
    assert read_folder(tmp_path / "2").weights_sha256 != one.weights_sha256


def test_a_changed_tokenizer_changes_only_its_own_hash(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    before = read_folder(folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    after = read_folder(folder)
    assert before.tokenizer_sha256 not in (None, after.tokenizer_sha256)
    assert before.weights_sha256 == after.weights_sha256


def test_a_complete_sharded_model_is_accepted(tmp_path: Path) -> None:
    assert len(read_folder(sharded_folder(tmp_path / "m")).weights_sha256) == 64


@pytest.mark.parametrize("n_cut", [1, 8, 60, 10_000])
def test_truncated_weights_are_refused(tmp_path: Path, n_cut: int) -> None:
    folder = model_folder(tmp_path / "m")
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: max(0, len(data) - n_cut)])
    with pytest.raises(BadInput, match="truncated"):
        read_folder(folder)


def test_a_header_that_lies_about_its_shapes_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data.replace(b"[2,3]", b"[9,3]"))
    with pytest.raises(BadInput, match="corrupt safetensors header"):
        read_folder(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m")
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model-2\.safetensors, which is not in the folder"):
        read_folder(folder)


def test_a_tensor_that_no_shard_holds_is_named(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "m")
    save_file({"other": torch.zeros(3)}, folder / "model-2.safetensors")
    with pytest.raises(BadInput, match="promises c in model-2"):
        read_folder(folder)


def test_an_adapter_that_would_load_another_model_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"}')
    with pytest.raises(BadInput, match="merge it into the model"):
        read_folder(folder)


def test_pickled_weights_are_refused_with_the_mend(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="save_pretrained as safetensors"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "not a causal language model"),
        ({"architectures": []}, "must name one architecture"),
        ({"model_type": "homemade", "auto_map": {"AutoModel": "m.M"}}, "code of its own"),
    ],
)
def test_models_that_mneme_cannot_use_are_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_folder(model_folder(tmp_path / "m", **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "quantised by bitsandbytes: ",
        ),
        (
            {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}},
            "quantised by mxfp4: .* save the model in",
        ),
        ({"quantization_config": {"bits": 4}}, "quantised by an unnamed method: "),
    ],
)
def test_models_quantised_by_their_settings_are_refused(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_folder(model_folder(tmp_path / "m", **changes))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_of_a_quantised_type_are_refused_by_name_and_buffers_of_integers_are_not(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = model_folder(tmp_path / "m", quantization_config=None)
    buffers = {"h.0.bias": torch.ones(2, 2, dtype=torch.bool), "norm.weight": torch.ones(2)}
    save_file(buffers | {"position_ids": torch.arange(4)[None]}, folder / SINGLE)
    assert read_folder(folder).n_layers == 2
    save_file(buffers | {"q_proj.weight": torch.ones(2, 2).to(dtype)}, folder / SINGLE)
    with pytest.raises(BadInput, match=r"holds q_proj.weight as (I8|U8|F8_E4M3), which is quantised: Mneme needs"):
        read_folder(folder)


def test_a_built_in_model_that_also_ships_code_is_accepted(tmp_path: Path) -> None:
    assert read_folder(model_folder(tmp_path / "m", auto_map={"AutoModel": "m.M"})).n_layers == 2


def test_missing_and_broken_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_folder(tmp_path / "nowhere")
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        read_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"no config\.json"):
        read_folder(folder)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / SINGLE).rename(folder / "inside.safetensors")
    (folder / SINGLE).symlink_to("inside.safetensors")
    assert read_folder(folder).n_layers == 2
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    (folder / "extra.json").symlink_to(outside)
    with pytest.raises(BadInput, match="leaves the model folder"):
        read_folder(folder)


def test_a_hub_snapshot_may_link_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "blobs").mkdir()
    folder = model_folder(repository / "snapshots" / "abc")
    (folder / SINGLE).rename(repository / "blobs" / "1")
    (folder / SINGLE).symlink_to("../../blobs/1")
    assert read_folder(folder).n_layers == 2


def test_a_link_out_of_the_hub_cache_is_refused_however_many_links_lie_between(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "blobs").mkdir()
    folder = model_folder(repository / "snapshots" / "abc")
    (folder / SINGLE).rename(tmp_path / "elsewhere.safetensors")
    (repository / "blobs" / "1").symlink_to("../../elsewhere.safetensors")
    (folder / SINGLE).symlink_to("../../blobs/1")
    with pytest.raises(BadInput, match=r"abc/model\.safetensors is a link that leaves the model folder"):
        read_folder(folder)


def test_a_linked_folder_outside_is_refused_and_a_link_to_itself_harms_nothing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "loop").symlink_to("loop")
    assert read_folder(folder).n_layers == 2
    (folder / "more").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="m/more is a link that leaves the model folder"):
        read_folder(folder)


def test_importing_the_module_does_not_import_torch() -> None:
    program = "import sys, mneme.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
