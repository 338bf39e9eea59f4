"""The real hub client talks to a hub of ours on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save

from mneme.errors import BadInput
from mneme.hub import fetch
from mneme.weights import read_folder

COMMITS = {"main": "a" * 40, "step1000": "b" * 40}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other tests are offline; these reach a hub on the loopback interface."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def repository(commit: str) -> dict[str, bytes]:
    """Files of one commit; the later one has other weights."""
    weight = torch.full((2,), float(commit == COMMITS["main"]))
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": save({"w": weight}),
        "tokenizer.json": b"{}",
        "modeling_evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
        "onnx/model.safetensors": b"other",
    }


class Hub(BaseHTTPRequestHandler):
    """Model info, tree and file endpoints of one repository, owner/tiny."""

    asked: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.answer_api(parts[2:])
        elif parts[:2] == ["owner", "tiny"] and parts[2] == "resolve":
            self.answer_file(self.commit_of(parts[3]), "/".join(parts[4:]))
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def commit_of(self, revision: str) -> str | None:
        return COMMITS.get(revision, revision if revision in COMMITS.values() else None)

    def answer_api(self, parts: list[str]) -> None:
        if parts[:2] != ["owner", "tiny"]:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        revision = parts[3] if len(parts) > 3 else "main"
        commit = self.commit_of(revision)
        if commit is None:
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = repository(commit)
        if len(parts) > 2 and parts[2] == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.send(200, json.dumps(tree).encode(), {})
        info = {"id": "owner/tiny", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return self.send(200, json.dumps(info).encode(), {})

    def answer_file(self, commit: str | None, name: str) -> None:
        files = repository(commit) if commit else {}
        if name not in files:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha1(files[name]).hexdigest()
        return self.send(200, files[name], {"X-Repo-Commit": str(commit), "ETag": f'"{etag}"'})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Hub.asked.clear()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_branch_name_becomes_the_commit_it_stands_for(hub: str, tmp_path: Path) -> None:
    found = fetch("owner/tiny", "step1000", cache_dir=tmp_path, endpoint=hub)
    assert found.commit == COMMITS["step1000"]
    assert found.folder.name == found.commit


def test_without_a_revision_the_default_branch_is_recorded_as_its_commit(hub: str, tmp_path: Path) -> None:
    assert fetch("owner/tiny", cache_dir=tmp_path, endpoint=hub).commit == COMMITS["main"]


def test_neither_code_nor_pickles_nor_subfolders_are_fetched(hub: str, tmp_path: Path) -> None:
    folder = fetch("owner/tiny", cache_dir=tmp_path, endpoint=hub).folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not any("evil" in path or ".bin" in path for path in Hub.asked)


def test_what_is_fetched_passes_the_folder_check(hub: str, tmp_path: Path) -> None:
    folder = fetch("owner/tiny", cache_dir=tmp_path, endpoint=hub).folder
    assert read_folder(folder).architecture == "LlamaForCausalLM"


def test_two_revisions_have_different_weights(hub: str, tmp_path: Path) -> None:
    folders = [fetch("owner/tiny", name, cache_dir=tmp_path, endpoint=hub).folder for name in COMMITS]
    assert len({read_folder(folder).weights_sha256 for folder in folders}) == 2


def test_unknown_ids_and_revisions_are_one_sentence(hub: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="owner/none does not exist or is private"):
        fetch("owner/none", cache_dir=tmp_path, endpoint=hub)
    with pytest.raises(BadInput, match="has no revision 'step9'"):
        fetch("owner/tiny", "step9", cache_dir=tmp_path, endpoint=hub)
    with pytest.raises(BadInput, match="neither a folder nor a hub id"):
        fetch("not//an id", cache_dir=tmp_path, endpoint=hub)


def test_without_a_network_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the hub cannot be reached"):
        fetch("owner/tiny", cache_dir=tmp_path, endpoint="http://127.0.0.1:9")
    with pytest.raises(BadInput, match="the hub cannot be reached"):
        fetch("owner/tiny", "c" * 40, cache_dir=tmp_path, endpoint="http://127.0.0.1:9")


def test_what_was_fetched_once_is_found_without_a_network(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch("owner/tiny", cache_dir=tmp_path, endpoint=hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    n_asked = len(Hub.asked)
    assert fetch("owner/tiny", cache_dir=tmp_path, endpoint=hub) == first
    assert fetch("owner/tiny", first.commit, cache_dir=tmp_path, endpoint=hub) == first
    assert len(Hub.asked) == n_asked
