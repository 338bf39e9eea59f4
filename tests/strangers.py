"""What strangers may write, by entry point: each is refused with one sentence that holds the words beside it.

YAML, settings, prompts, SQL and model folders come from anyone. A case is (what is written, words of the sentence).
"""

from __future__ import annotations

import json
import struct

STUDY = "models: [m]\npromptsets: [p]\nprobes: [previous_token]\n"
CONFIG = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
LONG = "n" * 10_000
DEEP = "[" * 3000 + "]" * 3000
CLAIM = "claims: {{c: {{found: {}, expected: above, unit: x}}}}\n"

Cases = dict[str, tuple[str | bytes, str]]

STUDIES: Cases = {
    "no YAML": ("models: [m\n", "is not valid YAML"),
    "a list": ("- m\n", "must hold a mapping of keys to values, not a list"),
    "nothing": ("", "must hold a mapping of keys to values, not a NoneType"),
    "no UTF-8": (b"\xff\xfe\x00", "cannot be read"),
    "a NUL": (STUDY + "x: \0", "special characters are not allowed"),
    "a NUL by its escape": (STUDY + 'description: "a\\0b"\n', "a text with a NUL or half a character ('a\\x00b')"),
    "half a character": (STUDY + 'description: "\\ud800"\n', "a text with a NUL or half a character ('\\ud800')"),
    "a call": (STUDY + "description: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
    "a date that is none": (STUDY + "description: 2024-99-99\n", "(month must be in 1..12): put it in quotes"),
    "a word as a number": (STUDY + "probe_seed: !!int abc\n", "invalid literal for int()"),
    "a word as a float": (STUDY + "trace_limit_mib: !!float abc\n", "could not convert string to float"),
    "5000 digits": (STUDY + "probe_seed: " + "9" * 5000 + "\n", "Exceeds the limit (4300 digits)"),
    "3000 levels": (f"a: {DEEP}", "is nested too deep"),
    "a list inside itself": ("a: &a [*a]\n", "alias 'a' stands for more than one value"),
    "a list of lists of lists": ("a: &a [x, x]\nb: &b [*a, *a]\n", "line 2, column 8"),
    "an alias of nothing": ("a: *nowhere\n", "found undefined alias"),
    "a merged key": (STUDY + "<<: {a: 1}\n", "tag:yaml.org,2002:merge"),
    "a key that is a number": (STUDY + "1: 2\n", "key 1 is not a text"),
    "a key twice": (STUDY + "models: [m]\n", "key 'models' stands there twice"),
    "not a number": (STUDY + "trace_limit_mib: .nan\n", "holds nan, which is no value"),
    "infinity": (STUDY + "trace_limit_mib: .inf\n", "holds inf, which is no value"),
    "a key of two lines": (STUDY + '"a\\nb": 1\n', "unknown key 'a b'"),
    "a key of 10,000 characters": (STUDY + f"? {LONG}\n: 1\n", "unknown key 'nnnn"),
    "a name of 10,000 characters": (STUDY.replace("[m]", f"[{LONG}]"), "'models.0.model': String should match"),
    "a name with a quote": (STUDY.replace("[m]", '["m\'; drop"]'), "drop"),
    "a name that climbs": (STUDY.replace("[m]", "[../m]"), "(found '../m')"),
    "a name in another script": (STUDY.replace("[m]", "[mödel]"), "(found 'mödel')"),
    "a name with a line break": (STUDY.replace("[m]", '["m\\n"]'), "(found 'm\\n')"),
    "a seed below zero": (STUDY + "probe_seed: -1\n", "greater than or equal to 0"),
    "a device that is a path": (STUDY + "device: /dev/sda\n", "(found '/dev/sda')"),
    "a claim that reads a file": (
        STUDY + CLAIM.format("\"select content as unit_id, 1 as value from read_text('/etc/hostname')\""),
        "claim c: `found` cannot be asked: Permission Error",
    ),
    "a claim that attaches": (STUDY + CLAIM.format("\"attach '/tmp/x.db'\""), "claim c: `found` is refused: results"),
    "a claim that closes its bracket": (
        STUDY + CLAIM.format("select 1 as unit_id) as x, (select 2 as value").replace("found: ", "found: '")
        .replace(", expected", "', expected"),
        "syntax error at or near",
    ),
    "a claim of two statements": (STUDY + CLAIM.format("'select 1; drop table x'"), "these are 2"),
    "a claim without a number": (
        STUDY + CLAIM.format("\"select 1 as unit_id, 'a' as value\""), "must give a number as value"
    ),
    "a claim that asks for the environment": (
        STUDY + CLAIM.format("\"select getenv('HF_TOKEN') as unit_id, 1 as value\""), "getenv does not exist"
    ),
    "a claim below the marts": (STUDY + CLAIM.format("'from raw.trials'"), "there is no view"),
}  # fmt: skip

SETTINGS: Cases = {
    "no value": ("models", "is not key=value"),
    "no key": ("=1", "--set '=1' is not key=value"),
    "an unknown key": ("a.b=1", "unknown key 'a'"),
    "an empty key of a member": ("models.m.=1", "unknown key ''"),
    "a path through a text": ("models.m.source.path..=1", "'path' is not a mapping"),
    "a number of 5000 digits": ("probe_seed=" + "9" * 5000, "holds a value that cannot be read"),
    "3000 brackets": (f"probe_seed={DEEP}", "is nested too deep"),
    "20 brackets": ("promptsets.p.parameters.n_items=" + "[" * 22 + "]" * 22, "at most 20 levels"),
    "a call": ("probe_seed=!!python/name:os.system", "is not valid YAML"),
    "a user that does not exist": ("models.m.source.path=~nobody-here/x", "names a user that does not exist"),
    "nothing for models": ("models=null", "Input should be a valid tuple"),
    "a NUL for a path": ('models.m.source.path="a\\0b"', "a text with a NUL"),
    "a member without a name": ("models..x=1", "the study uses no model ''"),
    "not a number": ("promptsets.p.parameters.n_items={a: .nan}", "holds nan"),
    "parameters that are a number": ("promptsets.p.parameters=5", "Input should be a valid dictionary"),
    "a date": ("promptsets.p.parameters.n_items=2020-01-01", "not a valid JSON value"),
    "bytes": ("promptsets.p.parameters.n_items=!!binary aGVsbG8=", "(found \"b'hello'\")"),
}

MODELS: Cases = {
    "a path that climbs": ("source: {kind: local, path: ../../../../etc}", "leaves"),
    "an empty path": ("source: {kind: local, path: ''}", "at least 1 character"),
    "a path that is a number": (
        "source: {kind: local, path: 5}",
        "'source.local.path': Input should be",
    ),
    "an endless path": (f"source: {{kind: local, path: {LONG}}}", "at most 4000 characters"),
    "a user that does not exist": ("source: {kind: local, path: ~nobody-here/x}", "path '~nobody-here/x'"),
    "an unknown kind": ("source: {kind: exec}", "'exec'"),
    "a list for a source": ("source: [a]", "'source': Input should be a valid dictionary"),
    "a hub id that climbs": ("source: {kind: hub, id: ../x}", "'source.hub.id': '..' and a '/' in front"),
    "a hub id of three parts": ("source: {kind: hub, id: a/b/c}", "'source.hub.id': String should match"),
    "a revision that climbs": ("source: {kind: hub, id: a/b, revision: x/../../y}", "'source.hub.revision': '..'"),
    "a revision that is a path": ("source: {kind: hub, id: a/b, revision: /etc}", "(found '/etc')"),
    "a revision with a space": ("source: {kind: hub, id: a/b, revision: a b}", "(found 'a b')"),
    "steps that climb": ("source: {kind: hub, id: a/b}\nstep_revision: '../{step}'", "'step_revision': '..'"),
    "steps without a step": ("source: {kind: hub, id: a/b}\nstep_revision: main", "'step_revision': String should"),
    "a recipe that climbs": ("source: {kind: recipe, recipe: ../os}", "'source.recipe.recipe'"),
    "remote code": ("source: {kind: hub, id: a/b}\ntrust_remote_code: true", "unknown key 'trust_remote_code'"),
    "a dtype that is none": ("source: {kind: hub, id: a/b}\ndtype: int4", "'dtype'"),
    "infinity": ("source: {kind: recipe, recipe: induction_lm, parameters: {x: .inf}}", "holds inf"),
}

PROMPTSETS: Cases = {
    "a file that climbs": ("generator: user_prompts\nfile: ../../../../etc/x.csv", "leaves"),
    "an empty file": ("generator: user_prompts\nfile: ''", "'file': String should have at least 1 character"),
    "a generator that climbs": ("generator: ../../os", "'generator'"),
    "a generator that is private": ("generator: __init__", "(found '__init__')"),
    "no generator": ("description: none", "the key 'generator' is missing"),
    "an unknown key": ("generator: ioi\nexec: id", "unknown key 'exec'"),
    "parameters that are a list": ("generator: ioi\nparameters: [1]", "'parameters'"),
}

PROMPTS: dict[str, tuple[str, str | bytes, str]] = {
    "neither": ("a.txt", "prompt\na\n", "is neither .csv nor .jsonl"),
    "an empty file": ("a.csv", "", "holds no prompts"),
    "a line of another length": ("a.csv", "prompt\na,b\n", "line 2 has another number of columns"),
    "an open quote": ("a.csv", 'prompt\n"a\n', "is not valid CSV: unexpected end of data"),
    "a column twice": ("a.csv", "prompt,prompt\na,b\n", "the header names 'prompt' twice"),
    "an endless field": ("a.csv", "prompt\n" + "a" * 200_000, "field larger than field limit"),
    "UTF-16": ("a.csv", "prompt\na\n".encode("utf-16"), "cannot be read: 'utf-8' codec"),
    "no JSON": ("a.jsonl", "{", "line 1 is not valid JSON: Expecting property name"),
    "a list": ("a.jsonl", '["a"]', "line 1 is not an object"),
    "a key twice": ("a.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1 names 'prompt' twice"),
    "100,000 brackets": ("a.jsonl", "[" * 100_000, "maximum recursion depth exceeded"),
    "5000 digits": ("a.jsonl", '{"prompt": ' + "9" * 5000 + "}", "Exceeds the limit"),
    "half a character": ("a.jsonl", '{"prompt": "\\ud800"}', "half a character"),
    "a NUL": ("a.jsonl", '{"prompt": "a\\u0000"}', "('a\\x00')"),
    "not a number": ("a.jsonl", '{"prompt": "a", "position_x": NaN}', "line 1 holds nan"),
    "40 brackets": ("a.jsonl", '{"prompt": ' + "[" * 40 + "]" * 40 + "}", "nested too deep"),
    "nothing but blank lines": ("a.jsonl", "\n\n", "a.jsonl holds no prompts"),
}

SQL: Cases = {
    "nothing": ("", "there is none"),
    "two statements": ("select 1; select 2", "these are 2"),
    "bytes that are no text": ("select '\udcff'", "no UTF-8"),
    "a file": ("select * from read_text('/etc/hostname')", 'Cannot access file "/etc/hostname"'),
    "a file by its name": ("select * from '/etc/passwd'", "there is no view '/etc/passwd'"),
    "a folder": ("select * from glob('/*')", 'Cannot access file "/*"'),
    "a table of a file": ("select * from read_csv('/etc/passwd')", 'Cannot access file "/etc/passwd"'),
    "a file through query()": ("from query('from read_text(''/etc/group'')')", "/etc/group"),
    "an address": ("select * from 'https://example.org/x.csv'", "https://example.org/x.csv"),
    "a bucket": ("select * from 's3://bucket/x.parquet'", "s3://bucket/x.parquet"),
    "secrets": ("select * from duckdb_secrets()", "stored_secrets"),
    "the environment": ("select getenv('HF_TOKEN')", "getenv does not exist"),
    "extensions": ("select * from duckdb_extensions()", "extensions"),
    "a copy inside explain": ("explain analyze copy (select 1) to '/tmp/x.csv'", 'Cannot access file "/tmp/x.csv"'),
    "a table inside explain": ("explain analyze create table t as select 1", "read-only mode"),
    "a setting inside explain": ("explain analyze set lock_configuration = false", "the configuration has been locked"),
    "an extension inside explain": ("explain analyze load httpfs", "Loading external extensions is disabled"),
    "logging to a file": ("from enable_logging(storage = 'file', storage_path = '/tmp/x')", "enable_logging"),
    "an attachment": ("attach '/tmp/x.db'", "results are only read here"),
    "a variable of Python": ("select * from home", "there is no view 'home'"),
    "a thousand brackets": ("select " + "(" * 3000 + "1" + ")" * 3000, "Max expression depth limit"),
    "an open comment": ("select 1 /*", "unterminated /* comment"),
    "an open quote": ("select '", "unterminated string literal"),
    "a text that steers the terminal": ("select error('\x1b[2Jgone')", "\\x1b[2Jgone"),
    "a view of 10,000 characters": (f"from {LONG}", "there is no view 'nnn"),
}


def tensors(header: object, data: bytes = b"\0" * 4) -> bytes:
    """A safetensors file with that header; bytes are taken as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _one(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


CONFIGS: Cases = {
    "no JSON": ("{", "config.json is not valid JSON"),
    "100,000 brackets": ("[" * 100_000, "maximum recursion depth exceeded"),
    "a list": ("[]", "is not a JSON object"),
    "no UTF-8": (b"\xff", "codec can't decode"),
    "5000 digits": ('{"n_layer": ' + "9" * 5000 + "}", "Exceeds the limit"),
    "no architecture": ("{}", "must name one architecture, not []"),
    "an architecture that is a number": ('{"architectures": 5}', "not 5"),
    "an architecture that is a text": ('{"architectures": "GPT2LMHeadModel"}', "not GPT2LMHeadModel"),
    "an architecture that is an object": ('{"architectures": {"a": 1}}', "not {'a': 1}"),
    "another kind of model": ('{"architectures": ["BertForMaskedLM"]}', "holds a BertForMaskedLM"),
    "an architecture of 10,000 characters": (json.dumps({"architectures": [LONG]}), "holds a nnnn"),
    "an encoder and a decoder": (json.dumps(CONFIG | {"is_encoder_decoder": True}), "holds a GPT2LMHeadModel, not"),
    "code of its own": (json.dumps(CONFIG | {"model_type": "own", "auto_map": {"a": "b"}}), "wants code of its own"),
    "quantised weights": (json.dumps(CONFIG | {"quantization_config": {"quant_method": "gptq"}}), "quantised by gptq"),
    "quantised by nobody": (json.dumps(CONFIG | {"quantization_config": 5}), "quantised by an unnamed method"),
}

WEIGHTS: Cases = {
    "nothing": (b"", "is truncated or no safetensors file"),
    "a length of 16 EiB": (b"\xff" * 8 + b"x", "is truncated or no safetensors file"),
    "100,000 brackets": (tensors(b"[" * 100_000), "corrupt safetensors header"),
    "a list": (tensors(b"[]"), "corrupt safetensors header"),
    "a shape below zero": (tensors(_one(shape=[-1, -1])), "corrupt safetensors header"),
    "a shape that is a text": (tensors(_one(shape=["x"])), "corrupt safetensors header"),
    "an unknown type": (tensors(_one(dtype="F33")), "corrupt safetensors header"),
    "infinite offsets": (tensors(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}'), "corrupt"),
    "bytes that nobody names": (tensors(_one(), b"\0" * 9), "holds 9 bytes of weights where its header says 4"),
}

INDEXES: Cases = {
    "a list": ("[]", "is not a safetensors index"),
    "no files": ('{"weight_map": {}}', "is not a safetensors index"),
    "100,000 brackets": ("[" * 100_000, "is not a safetensors index"),
    "a name that is a number": ('{"weight_map": {"a": 5}}', "is not a safetensors index"),
    "a name that climbs": ('{"weight_map": {"a": "../x"}}', "names ../x, which is not in the folder"),
    "a path": ('{"weight_map": {"a": "/etc/passwd"}}', "names /etc/passwd"),
    "a pickle": ('{"weight_map": {"a": "pytorch_model.bin"}}', "names pytorch_model.bin"),
    "a name of 10,000 characters": (json.dumps({"weight_map": {"a": LONG}}), "names nnnn"),
}
