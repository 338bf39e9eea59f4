"""What the documents show is true of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from storage.config_files import parse
from storage.specs import ModelSpec, ProbeSpec, PromptsetSpec, Spec, StudySpec

ROOT = Path(__file__).resolve().parent.parent

TRY_THE_EXAMPLES = """
import torch
from mneme.promptset import Vocabulary
from same_token import same_token
from tests.patterns import prompts_of, uniform
from two_back import two_back

found = float(two_back(uniform(10), prompts_of(torch.arange(10)[None])))
assert abs(found - sum(1 / (query + 1) for query in range(2, 10)) / 8) < 1e-6, found
import tempfile
from pathlib import Path
from mneme.model import load_model
from mneme.recipe import Workshop
from same_token_lm import same_token_lm

folder = Path(tempfile.mkdtemp())
assert same_token_lm(Workshop(folder), seed=0, n_rows=2000) == {"rows": 2000}
said = load_model(folder).hf(torch.arange(50)[None]).logits.argmax(-1)
assert bool((said == torch.arange(50)).all()), said
made = same_token(Vocabulary(100, 64, "native", 0, frozenset({0})), seed=1, n_items=3, n_tokens=5).clean.ids
assert made.shape == (3, 6) and bool((made[:, 1:] == made[:, 1:2]).all()) and bool((made[:, 0] == 0).all()), made
"""


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def kind_of(content: dict[str, object]) -> type[Spec]:
    for key, kind in (("source", ModelSpec), ("generator", PromptsetSpec), ("models", StudySpec)):
        if key in content:
            return kind
    return ProbeSpec


def test_the_probe_the_promptset_and_the_model_of_the_recipes_work(tmp_path: Path) -> None:
    examples = blocks("CONTRIBUTING.md", "python")
    assert len(examples) == 3
    for name, example in zip(("two_back", "same_token", "same_token_lm"), examples, strict=True):
        (tmp_path / f"{name}.py").write_text(example)
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{TRY_THE_EXAMPLES}"
    tried = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert tried.returncode == 0, tried.stderr


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_configuration_in_the_documents_is_accepted(document: str) -> None:
    shown = [yaml.safe_load(each) for each in blocks(document, "yaml")]
    assert len(shown) >= 2
    for content in shown:
        parse(kind_of(content), content, document)


def test_every_link_inside_the_documents_leads_to_a_file() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text())
        assert [each for each in links if not (ROOT / each).is_file()] == []


def test_the_texts_are_long_enough_and_plain() -> None:
    texts = [each.read_text() for each in (ROOT / "mneme" / "promptsets" / "texts").glob("*.txt")]
    assert 10_000 <= sum(len(text.split()) for text in texts) <= 11_000
    assert all(text.isascii() and not re.search(r"[<>*#_|\t]", text) for text in texts)


def test_the_citation_fits_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    checked = subprocess.run([*command, str(ROOT / "CITATION.cff")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_module_of_the_science_stands_in_the_architecture_and_the_other_way_round() -> None:
    table = (ROOT / "ARCHITECTURE.md").read_text().split("| modules | hold |")[1].split("###")[0]
    named = set(re.findall(r"`(\w+)`", table))
    modules = {path.stem for path in (ROOT / "mneme").glob("*.py")} - {"__init__"}
    assert named == modules
