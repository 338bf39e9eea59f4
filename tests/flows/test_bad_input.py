"""Bad input, end to end: one sentence on stderr with place and mend, an exit code, no traceback, nothing lost."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel

from flows.cli.app import main
from storage.home import Home
from storage.rows import rows
from tasks.publish import publish
from tests.flows.conftest import STUDY
from tests.small_tokenizers import save_tokenizer

pytestmark = pytest.mark.usefixtures("prefect_server", "own_environment")
SCORES = "select trial_id, probe, layer, head, item, value from mart.item_scores order by all"
PROGRESS = re.compile(r"(\d+ trials; starting Prefect|  \S.*)")


class Said(NamedTuple):
    """How a command ended: its exit code, its stdout, and its last words on stderr."""

    code: int
    out: str
    sentence: str


Command = Callable[..., Said]


@pytest.fixture
def mneme(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process; stderr may hold progress and one sentence at its end, never a traceback."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["mneme", *words])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        progress, mark, sentence = err.partition("mneme: ")
        assert [line for line in progress.splitlines() if not PROGRESS.fullmatch(line)] == []
        assert "mneme: " not in sentence
        return Said(code, out, mark + sentence.rstrip("\n"))

    return run


@pytest.fixture(scope="module")
def answered_once(
    tmp_path_factory: pytest.TempPathFactory, planted_folder: Path, mlflow_database: Path, prefect_server: str
) -> Path:
    """A home with the answered study `planted`, and its configs; made once, copied for each test."""
    folder = tmp_path_factory.mktemp("answered")
    for kind in ("models", "promptsets", "probes", "studies"):
        (folder / "configs" / kind).mkdir(parents=True)
    (folder / "configs" / "models" / "planted.yaml").write_text(f"source: {{kind: local, path: {planted_folder}}}\n")
    (folder / "configs" / "studies" / "planted.yaml").write_text(STUDY)
    (folder / "home").mkdir()
    shutil.copyfile(mlflow_database, folder / "home" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNEME_HOME", str(folder / "home"))
        patch.setenv("MNEME_CONFIGS", str(folder / "configs"))
        from flows.study import study

        study("planted")
    return folder


@pytest.fixture
def answered(answered_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home in which `planted` is answered; whatever the test does, its numbers must be there afterwards."""
    shutil.copytree(answered_once, tmp_path / "own")
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "own" / "home"))
    monkeypatch.setenv("MNEME_CONFIGS", str(tmp_path / "own" / "configs"))
    home = Home(tmp_path / "own" / "home")
    before = rows(home, SCORES)
    assert before
    yield home
    assert [row for row in rows(home, SCORES) if row in before] == before


def config(kind: str, name: str, text: str) -> Path:
    """Write a YAML of this test."""
    path = Path(os.environ["MNEME_CONFIGS"]) / kind / f"{name}.yaml"
    path.write_text(text)
    return path


def words(*parts: str) -> str:
    """A pattern that finds the parts in their order."""
    return ".*".join(re.escape(part) for part in parts)


REFUSED = {
    "unknown study": (["run", "plantde"], ["unknown study 'plantde'", "did you mean 'planted'"]),
    "unknown model": (["run", "planted", "--set", "models=[plantd]"], ["unknown model 'plantd'", "'planted'"]),
    "unknown promptset": (
        ["run", "planted", "--set", "promptsets=[repeated_token]", "--set", "overrides={}"],
        ["unknown promptset 'repeated_token'", "'repeated_tokens'"],
    ),
    "unknown probe": (["run", "planted", "--set", "probes=[inducton]"], ["unknown probe 'inducton'", "'induction'"]),
    "unknown variant": (
        ["run", "planted", "--set", "probes=[{probe: induction, variant: firts}]"],
        ["probe induction has no variant 'firts'"],
    ),
    "unknown key": (["run", "planted", "--set", "modells=[planted]"], ["unknown key 'modells'", "'models'"]),
    "unknown parameter": (
        ["run", "planted", "--set", "promptsets.repeated_tokens.parameters.perid=9"],
        ["repeated_tokens takes no parameter 'perid'", "'period'"],
    ),
    "unknown probe parameter": (
        ["run", "planted", "--set", "probes.induction.parameters.offsets=9"],
        ["probe induction takes no parameter 'offsets'"],
    ),
    "set without a value": (["run", "planted", "--set", "models"], ["--set 'models' is not key=value"]),
    "set of no YAML": (["run", "planted", "--set", "models=[a"], ["--set models: the value '[a' is not valid YAML"]),
    "set of the wrong kind": (["run", "planted", "--set", "promptset_seeds=soon"], ["promptset_seeds", "'soon'"]),
    "set of a member left out": (
        ["run", "planted", "--set", "models.gpt2-small.dtype=float64"],
        ["models.gpt2-small.dtype", "uses no model 'gpt2-small'"],
    ),
    "refresh of nothing": (["run", "planted", "--refresh", "inducton"], ["--refresh 'inducton' names no trial"]),
    "a device that is not there": (
        ["run", "planted", "--set", "device=cuda:99"],
        ["device 'cuda:99' is not available here", "use one of cpu"],
    ),
    "device of no kind": (["run", "planted", "--set", "device=gpu"], ["device", "'gpu'"]),
    "two statements": (["sql", "select 1; select 2"], ["one SQL statement at a time", "these are 2"]),
    "a write": (["sql", "create table mine as select 1"], ["results are only read here"]),
    "a deletion": (["sql", "delete from raw.trials"], ["results are only read here"]),
    "a copy to a file": (["sql", "copy mart.trials to '/tmp/x.csv'"], ["results are only read here"]),
    "a file read": (["sql", "select * from read_text('/etc/hostname')"], ["disabled"]),
    "a setting": (["sql", "set lock_configuration = false"], ["results are only read here"]),
    "an unknown view": (["sql", "select * from mart.head_rankin"], ["no view", "did you mean 'mart.head_ranking'"]),
    "an unknown column": (["sql", "select scor from mart.head_ranking"], ["scor"]),
    "an unknown format": (["sql", "select 1", "--format", "xml"], ["unknown format 'xml'"]),
    "an answer into no folder": (["sql", "select 1", "-o", "/dev/null/x.csv"], ["/dev/null/x.csv", "-o"]),
    "an unknown view to describe": (["views", "head_rankin"], ["head_rankin", "head_ranking"]),
    "an unknown trial": (["show", "zzzz"], ["no trial has an id that starts with 'zzzz'", "mart.trials"]),
    "an ambiguous trial": (["show", ""], ["3 trials have an id that starts with ''"]),
    "an unknown trial to forget": (["forget", "zzzz"], ["no trial has an id that starts with 'zzzz'"]),
    "a report of an unanswered study": (["report", "quickstart"], ["study 'quickstart' has no results", "planted"]),
    "a report into no folder": (["report", "-o", "/dev/null/x.html"], ["/dev/null"]),
    "an unknown kind to list": (["list", "model"], ["nothing is listed under 'model'", "'models'"]),
    "a stage that is none": (["gc", "--free", "traces"], ["--free 'traces' names nothing in the store", "trace"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_runs(answered: Home, mneme: Command, case: str) -> None:
    asked, expected = REFUSED[case]
    before = sorted(answered.lake.rglob("*"))
    said = mneme(*asked)
    assert said.code == 1
    assert re.search(words("mneme: ", *expected), said.sentence)
    assert sorted(answered.lake.rglob("*")) == before


def tiny(**changes: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **changes}, bos_token_id=0, eos_token_id=0))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip_header(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:9] + b"\xff" + content[10:])


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def bert(folder: Path) -> None:
    BertConfig(hidden_size=16, num_attention_heads=2, architectures=["BertForMaskedLM"]).save_pretrained(folder)


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing": (shutil.rmtree, ["models/missing does not exist", "name a folder"]),
    "configless": (lambda folder: (folder / "config.json").unlink(), ["has no config.json", "save_pretrained"]),
    "garbled": (lambda folder: (folder / "config.json").write_text("{"), ["config.json is not valid JSON", "again"]),
    "masked": (bert, ["holds a BertForMaskedLM, not a causal language model", "choose"]),
    "truncated": (cut, ["model.safetensors holds", "truncated or corrupt", "again"]),
    "corrupt": (flip_header, ["model.safetensors has a corrupt safetensors header", "again"]),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), ["is truncated", "again"]),
    "pickled": (pickled, ["holds pickled weights only", "safetensors"]),
    "weightless": (lambda folder: (folder / "model.safetensors").unlink(), ["holds no model.safetensors"]),
    "undefined": (
        lambda folder: edit_weights(folder, lambda each: each["transformer.wte.weight"].fill_(float("nan"))),
        ["transformer.wte.weight in", "models/undefined hold NaN or infinity", "again"],
    ),
    "incomplete": (
        lambda folder: edit_weights(folder, lambda each: each.pop("transformer.wpe.weight")),
        ["lacks the weights transformer.wpe.weight", "again"],
    ),
    "misshapen": (
        lambda folder: edit_text(folder / "config.json", '"n_positions": 64', '"n_positions": 32'),
        ["models/misshapen holds transformer.wpe.weight as [64, 16]", "config.json says [32, 16]", "again"],
    ),
    "coded": (
        lambda folder: edit_text(
            folder / "config.json", '"model_type": "gpt2"', '"model_type": "own", "auto_map": {"AutoModel": "own.Own"}'
        ),
        ["wants code of its own run (auto_map)", "use a built-in model"],
    ),
    "short": (lambda folder: tiny(n_positions=16).save_pretrained(folder), ["25 tokens", "context is 16", "lower"]),
}


@pytest.fixture
def broken(answered: Home, tmp_path: Path) -> None:
    """The models of BROKEN."""
    folder = tmp_path / "models"
    for name, (harm, _) in BROKEN.items():
        tiny().save_pretrained(folder / name)
        harm(folder / name)
        config("models", name, f"source: {{kind: local, path: {folder / name}}}\n")


@pytest.mark.usefixtures("broken")
def test_models_that_cannot_be_used_fail_with_a_sentence_each_and_the_others_go_on(
    answered: Home, mneme: Command
) -> None:
    models = ",".join([*BROKEN, "planted"])
    said = mneme("run", "planted", "--set", f"models=[{models}]", "--set", "probes=[previous_token]")
    n = len(BROKEN)
    assert said.code == 1
    assert said.sentence.startswith(f"mneme: {n} of {n + 1} trials of planted failed")
    found = {each["model"]: each for each in rows(answered, "select model, status, error from mart.trials")}
    assert found["planted"]["status"] == "delivered"
    for name, (_, expected) in BROKEN.items():
        assert found[name]["status"] == "failed"
        assert re.search(words(*expected), found[name]["error"])


ROWS: dict[str, tuple[str, str, list[str]]] = {
    "neither": ("neither.txt", "prompt\nThe water\n", ["neither.txt is neither .csv nor .jsonl"]),
    "bare": ("bare.csv", "prompt\n", ["bare.csv holds no prompts", "at least one row"]),
    "ragged": ("ragged.csv", "prompt,correct\nThe water, the dog,and\n", ["ragged.csv line 2", "quote texts"]),
    "unquoted": ("unquoted.csv", 'prompt\n"The water\n', ["unquoted.csv is not valid CSV"]),
    "binary": ("binary.csv", "\udcff\udcfe", ["binary.csv", "cannot be read"]),
    "unclosed": ("unclosed.jsonl", '{"prompt": "The"}\n{"prompt": \n', ["unclosed.jsonl line 2 is not valid JSON"]),
    "listed": ("listed.jsonl", '["The water"]\n', ["listed.jsonl line 1 is not an object"]),
    "misspelt": ("misspelt.csv", "promt\nThe water\n", ["unknown column 'promt'", "did you mean 'prompt'"]),
    "several": ("several.jsonl", '{"prompt": "The", "correct": "xylophone"}\n', ["correct is not a single token"]),
    "misaligned": (
        "misaligned.csv",
        "clean,corrupt\nThe water and the dog,The dog\n",
        ["clean and corrupt differ in their number of tokens", "mend the file"],
    ),
    "endless": ("endless.csv", f"prompt\n{'the ' * 200}\n", ["longer than the model's context of 128 tokens"]),
}


@pytest.fixture
def own_prompts(answered: Home, tmp_path: Path) -> None:
    """A model with a tokenizer, and the promptsets of ROWS."""
    torch.manual_seed(0)
    save_tokenizer(tmp_path / "words")
    GPT2LMHeadModel(GPT2Config.from_pretrained(tmp_path / "words", n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "words"
    )
    config("models", "words", f"source: {{kind: local, path: {tmp_path / 'words'}}}\n")
    for name, (file, content, _) in {**ROWS, "good": ("good.csv", "prompt\nThe water was\n", [])}.items():
        (tmp_path / file).write_text(content, errors="surrogateescape")
        config("promptsets", name, f"generator: user_prompts\nfile: {tmp_path / file}\n")
    config("promptsets", "absent", f"generator: user_prompts\nfile: {tmp_path / 'absent.csv'}\n")


@pytest.mark.usefixtures("own_prompts")
def test_prompts_that_cannot_be_used_fail_with_a_sentence_each_and_the_others_go_on(
    answered: Home, mneme: Command
) -> None:
    promptsets = ",".join([*ROWS, "absent", "good"])
    said = mneme(
        *("run", "planted", "--set", "models=[words]", "--set", f"promptsets=[{promptsets}]"),
        *("--set", "probes=[previous_token]", "--set", "overrides={}"),
    )
    n = len(ROWS) + 1
    assert said.code == 1
    assert said.sentence.startswith(f"mneme: {n} of {n + 1} trials of planted failed")
    found = {each["promptset"]: each for each in rows(answered, "select promptset, status, error from mart.trials")}
    assert found["good"]["status"] == "delivered"
    for name, expected in {**{name: row[-1] for name, row in ROWS.items()}, "absent": ["absent.csv"]}.items():
        assert found[name]["status"] == "failed"
        assert re.search(words(*expected), found[name]["error"])


def test_a_hub_model_fails_early_without_a_network(answered: Home, mneme: Command) -> None:
    config("models", "far", "source: {kind: hub, id: nobody/no-such-model}\n")
    said = mneme("run", "planted", "--set", "models=[far]")
    assert said.code == 1
    assert re.search("nobody/no-such-model at main is not in the cache and the hub cannot be reached: ", said.sentence)


YAMLS = {
    "no YAML": ("models: [planted\n", ["planted.yaml is not valid YAML", "line"]),
    "no mapping": ("- planted\n", ["planted.yaml must hold a mapping"]),
    "a key twice": (STUDY + "models: [planted]\n", ["key 'models' stands there twice", "line"]),
    "a stray key": (STUDY + "modelz: [planted]\n", ["unknown key 'modelz'", "'models'"]),
    "a lacking key": ("models: [planted]\n", ["the key 'promptsets' is missing"]),
    "no model": (STUDY.replace("[planted]", "[]"), ["models"]),
    "a member twice": (STUDY.replace("[planted]", "[planted, planted]"), ["stands there twice"]),
    "a tab": ("models:\n\t- planted\n", ["planted.yaml is not valid YAML"]),
    "an unknown generator": (STUDY.replace("repeated_tokens", "mine"), ["unknown promptset 'repeated_toks'"]),
}


@pytest.mark.parametrize("case", YAMLS)
def test_a_broken_study_is_refused_with_its_file(answered: Home, mneme: Command, case: str) -> None:
    text, expected = YAMLS[case]
    config("promptsets", "mine", "generator: repeated_toks\n")
    config("studies", "planted", text)
    said = mneme("run", "planted")
    assert said.code == 1
    assert re.search(words("mneme: ", *expected), said.sentence)


@pytest.mark.parametrize("asked", [["run", "planted"], ["gc"], ["rebuild"]])
def test_a_home_that_cannot_be_written_is_refused(
    answered: Home, mneme: Command, monkeypatch: pytest.MonkeyPatch, asked: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "file" / "home"))
    said = mneme(*asked)
    assert said.code == 1
    assert re.search(
        words("cannot write to the home", str(tmp_path / "file" / "home"), "set MNEME_HOME"), said.sentence
    )


def test_a_home_without_results_says_so(
    configs: Path, mneme: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MNEME_HOME", str(tmp_path / "none"))
    for asked in (["sql", "select 1"], ["report"], ["show", "a"], ["forget", "a"]):
        said = mneme(*asked)
        assert said.code == 1
        assert re.search("mneme: (there are no results|no trial has)", said.sentence)


@pytest.mark.parametrize("asked", [["sql", "select 1"], ["report"], ["show", "a"], ["run", "planted", "--plan"]])
def test_a_damaged_copy_is_said_and_mended_by_rebuild(answered: Home, mneme: Command, asked: list[str]) -> None:
    answered.results.write_bytes(b"no database")
    said = mneme(*asked)
    assert said.code == 1
    assert re.search(words(str(answered.results), "cannot be opened", "mneme rebuild"), said.sentence)
    assert mneme("rebuild").code == 0


def test_a_warehouse_in_use_is_said_and_the_trial_is_kept(
    answered: Home, mneme: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.study.publish", publish.with_options(retry_delay_seconds=0.1))
    hold = (
        f"import duckdb, sys; c = duckdb.connect({str(answered.warehouse)!r}); print(1, flush=True); sys.stdin.read()"
    )
    ask = ["run", "planted", "--set", "probes=[duplicate_token]"]
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = mneme(*ask)
        holder.communicate(b"")
    assert said.code == 1
    assert re.search(
        words(str(answered.warehouse), f"open for writing in process {holder.pid}", "again"), said.sentence
    )
    assert "computed now: 0 trials, 0 forward passes" in mneme(*ask).out


def test_a_warehouse_of_a_later_version_is_left_alone_and_nothing_is_computed_for_it(
    answered: Home, mneme: Command
) -> None:
    with duckdb.connect(str(answered.warehouse)) as connection:
        connection.execute("update raw.meta set value = '99' where name = 'layout'")
    before = answered.warehouse.read_bytes()
    said = mneme("run", "planted", "--set", "probes=[duplicate_token]")
    assert said.code == 1
    assert re.search("later version of Mneme.*: update Mneme, or use another MNEME_HOME", said.sentence)
    assert answered.warehouse.read_bytes() == before
    answered.warehouse.unlink()
    assert "computed now: 1 trials" in mneme("run", "planted", "--set", "probes=[duplicate_token]").out


@pytest.mark.parametrize("kib", [1, 3000])
def test_a_full_disk_is_said_and_what_was_stored_is_whole(answered: Home, mneme: Command, kib: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))
    try:
        said = mneme("run", "planted", "--set", "promptset_seeds=[1]")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.code == 1
    assert re.search(words("mneme: the disk under", "is full: free some space and run again"), said.sentence)
    assert mneme("run", "planted", "--set", "promptset_seeds=[1]").code == 0


def fresh(home: Home, server: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with nothing set but the home, the configs and Prefect's address."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "MNEME_CONFIGS") if name in os.environ}
    program = f"import sys; from flows.cli.app import main; sys.argv = ['mneme', *{list(words)!r}]; main()"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "MNEME_HOME": str(home.root), "PREFECT_API_URL": server},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_no_library_adds_noise_of_its_own(answered: Home, tmp_path: Path, prefect_server: str) -> None:
    tiny().save_pretrained(tmp_path / "incomplete")
    BROKEN["incomplete"][0](tmp_path / "incomplete")
    config("models", "incomplete", f"source: {{kind: local, path: {tmp_path / 'incomplete'}}}\n")
    ended = fresh(
        answered,
        prefect_server,
        "run",
        "planted",
        "--set",
        "models=[planted, incomplete]",
        "--set",
        "promptset_seeds=[1]",
    )
    *progress, sentence = ended.stderr.splitlines()
    assert [line for line in progress if not PROGRESS.fullmatch(line)] == []
    assert sentence.startswith("mneme: 3 of 6 trials of planted failed")
    assert ended.returncode == 1


def test_a_prefect_server_that_does_not_answer_is_named(answered: Home) -> None:
    ended = fresh(answered, "http://127.0.0.1:9/api", "run", "planted")
    assert "Traceback" not in ended.stderr
    assert re.search(words("mneme: ", "http://127.0.0.1:9/api", "unset PREFECT_API_URL"), ended.stderr)
    assert ended.returncode == 1
