"""YAML to specs: the only reader of configuration files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from mneme.errors import BadInput
from mneme.registry import near_names
from storage.config_text import plain_yaml
from storage.rendering import quoted
from storage.specs import ModelSpec, ProbeSpec, PromptsetSpec, Spec, StudySpec, is_name

Kind = Literal["models", "promptsets", "probes", "studies"]
KINDS: dict[Kind, type[Spec]] = {
    "models": ModelSpec,
    "promptsets": PromptsetSpec,
    "probes": ProbeSpec,
    "studies": StudySpec,
}
_SINGULAR = {"models": "model", "promptsets": "promptset", "probes": "probe", "studies": "study"}
SpecType = TypeVar("SpecType", bound=Spec)


def config_folders() -> list[Path]:
    """Where configuration is looked for: MNEME_CONFIGS, `./configs`, then the configs of this installation."""
    own = Path(__file__).resolve().parent.parent / "configs"
    named = os.environ.get("MNEME_CONFIGS")
    folders = [Path(named).expanduser()] if named else []
    return list(dict.fromkeys(each.resolve() for each in [*folders, Path("configs"), own]))


def config_names(kind: Kind) -> list[str]:
    """Every configured member of a kind."""
    return sorted({path.stem for folder in config_folders() for path in (folder / kind).glob("*.yaml")})


def config_path(kind: Kind, name: str) -> Path:
    """The YAML file of a member; raises BadInput with near names."""
    if is_name(name):
        for folder in config_folders():
            path = folder / kind / f"{name}.yaml"
            if path.is_file():
                return path
    raise BadInput(f"unknown {_SINGULAR[kind]} {quoted(name)}{near_names(name[:80], config_names(kind))}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises BadInput for anything else, keys given twice included."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    content = plain_yaml(text, str(path))
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold a mapping of keys to values, not a {type(content).__name__}")
    return content


def read_spec(kind: Kind, name: str, changes: Iterable[tuple[str, Any]] = ()) -> Spec:
    """The spec of a member with `changes` (dotted key, value) applied; paths in it become absolute."""
    path = config_path(kind, name)
    content = read_yaml(path)
    for dotted, value in changes:
        set_key(content, dotted, value, f"{kind}.{name}")
    spec = parse(KINDS[kind], content, str(path))
    return _with_absolute_paths(spec, path.parent)


def parse(kind: type[SpecType], content: dict[str, Any], place: str) -> SpecType:
    """Validate content; the first problem becomes one sentence that names the place (and near names of a stray key)."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{place}: {_first_problem(error, kind)}") from None


def set_key(content: dict[str, Any], dotted: str, value: Any, place: str) -> None:
    """Set `a.b.c` in nested mappings; intermediate mappings are made."""
    *parents, last = dotted.split(".")
    here: Any = content
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            raise BadInput(f"cannot set '{dotted}' of {place}: '{parent}' is not a mapping")
    here[last] = value


def _first_problem(error: ValidationError, kind: type[Spec]) -> str:
    first = error.errors(include_url=False)[0]
    where = " ".join(".".join(str(part) for part in first["loc"]).split())[:120]
    if first["type"] == "extra_forbidden":
        known = list(kind.model_fields) if len(first["loc"]) == 1 else []
        key = str(first["loc"][-1])[:80]
        return f"unknown key '{where}'" + (near_names(key, known) if known else "")
    if first["type"] == "missing":
        return f"the key '{where}' is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    if not where:  # what several keys together make wrong
        return message
    return f"'{where}': {message} (found {str(first['input'])[:60]!r})"


def _with_absolute_paths(spec: Spec, folder: Path) -> Spec:
    if isinstance(spec, ModelSpec) and spec.source.kind == "local":
        source = spec.source.model_copy(update={"path": _absolute(spec.source.path, folder)})
        return spec.model_copy(update={"source": source})
    if isinstance(spec, PromptsetSpec) and spec.file is not None:
        return spec.model_copy(update={"file": _absolute(spec.file, folder)})
    return spec


def _absolute(path: str, folder: Path) -> str:
    """The path from its YAML's folder; a relative one stays below the folder that holds the configs."""
    try:
        given = Path(path).expanduser()
    except RuntimeError as error:
        raise BadInput(f"path '{path[:80]}' in {folder} names a user that does not exist: write it out") from error
    absolute, root = os.path.normpath(folder / given), folder.parent.parent
    if not given.is_absolute() and not Path(absolute).is_relative_to(root):
        raise BadInput(f"path '{path[:80]}' in {folder} leaves {root}: give the absolute path if it is meant")
    return absolute
