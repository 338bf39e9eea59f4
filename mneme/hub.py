"""Fetches a model from a Hugging Face hub at one commit: safetensors, JSON and tokenizer files, never code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from mneme.errors import BadInput
from mneme.weights import weight_files

ALLOWED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "spiece.model", "merges.txt", "vocab.txt")
IGNORED = ("*/*",)  # what lies in subfolders are other formats and checkpoints


@dataclass(frozen=True)
class HubFolder:
    """A snapshot of a hub repository on this disk, and the 40-hex commit it is."""

    folder: Path
    commit: str


def fetch(
    hub_id: str, revision: str | None = None, cache_dir: str | Path | None = None, endpoint: str | None = None
) -> HubFolder:
    """The folder of `hub_id` at `revision` (branch, tag or commit; None = the default branch), fetched if need be.

    cache_dir and endpoint default to those of huggingface_hub (HF_HOME, HF_ENDPOINT).
    Raises: BadInput when the id, the revision or the access is wrong, or the hub cannot be reached and the commit is
    not in the cache.
    """
    place = hub_id if revision is None else f"{hub_id} at {revision}"
    try:
        commit = HfApi(endpoint=endpoint).resolve_revision(hub_id, revision=revision, cache_dir=cache_dir).resolved
        folder = _snapshot(hub_id, commit, cache_dir, endpoint)
    except RevisionNotFoundError as error:
        raise BadInput(
            f"hub model {hub_id} has no revision '{revision}': name a branch, tag or commit of it"
        ) from error
    except GatedRepoError as error:
        raise BadInput(
            f"hub model {hub_id} is gated: accept its terms on its page and log in with `hf auth`"
        ) from error
    except RepositoryNotFoundError as error:
        raise BadInput(f"hub model {hub_id} does not exist or is private: check the id, or log in first") from error
    except HFValidationError as error:
        raise BadInput(f"'{hub_id}' is neither a folder nor a hub id of the form owner/name: check it") from error
    except (LocalEntryNotFoundError, RevisionResolutionError, OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise BadInput(
            f"hub model {place} is not in the cache and the hub cannot be reached: fetch it once with a network, "
            "or name a local folder"
        ) from error
    return HubFolder(Path(folder), commit)


def _snapshot(hub_id: str, commit: str, cache_dir: str | Path | None, endpoint: str | None) -> str:
    wanted: dict[str, Any] = {
        "revision": commit,
        "cache_dir": cache_dir,
        "endpoint": endpoint,
        "allow_patterns": list(ALLOWED),
        "ignore_patterns": list(IGNORED),
    }
    try:
        folder = str(snapshot_download(hub_id, local_files_only=True, **wanted))
        weight_files(Path(folder))  # an interrupted download leaves a snapshot without all of its weights
        return folder
    except (LocalEntryNotFoundError, BadInput):
        HfApi(endpoint=endpoint).model_info(hub_id, revision=commit)  # fails at once where a download would retry
        return str(snapshot_download(hub_id, **wanted))


def cached_folder(hub_id: str, revision: str, cache_dir: str | Path | None = None) -> Path | None:
    """The snapshot that is on this disk already, without asking the hub; None when there is none."""
    try:
        return Path(snapshot_download(hub_id, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
