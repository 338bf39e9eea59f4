"""The commands of a newcomer, on the planted study."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli.app import main
from storage.home import Home
from storage.rows import rows

pytestmark = pytest.mark.usefixtures("prefect_server")
Command = Callable[..., str]


@pytest.fixture
def mneme(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command that succeeds and return what it says on stdout."""
    assert home.root.is_dir()

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mneme", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        said = capsys.readouterr()
        assert leaving.value.code in (0, None), said.err
        return said.out

    return run


def test_a_run_ends_with_tables_and_where_to_look_next(mneme: Command, home: Home) -> None:
    said = mneme("run", "planted")
    assert "L1H0 1 [1, 1]" in said
    assert "3 delivered; computed now: 3 trials" in said
    assert str(home.reports / "planted.html") in said
    assert "mneme sql" in said
    again = mneme("run", "planted")
    assert "computed now: 0 trials, 0 forward passes" in again


def test_a_plan_says_what_is_cached_and_which_part_changed(mneme: Command) -> None:
    assert "never answered" in mneme("run", "planted", "--plan") or "not prepared" in mneme("run", "planted", "--plan")
    mneme("run", "planted")
    assert "3 of 3 trials are answered; 0 to do" in mneme("run", "planted", "--plan")
    changed = mneme("run", "planted", "--plan", "--set", "promptsets.repeated_tokens.parameters.n_items=7")
    assert "0 of 3 trials are answered" in changed
    variant = mneme("run", "planted", "--plan", "--set", "probes=[{probe: induction, variant: without_first}]")
    assert "never answered" in variant
    line = next(each for each in variant.splitlines() if "induction[without_first]" in each)
    assert line.split("never answered")[1].split()[0] == "0"  # its trace is stored: no forward


def test_a_plan_runs_nothing(mneme: Command, home: Home) -> None:
    mneme("run", "planted", "--plan")
    assert not home.lake.exists()
    assert not home.results.exists()


def test_show_tells_spec_provenance_files_and_rows(mneme: Command, home: Home) -> None:
    mneme("run", "planted")
    (trial,) = rows(home, "select trial_id from mart.trials where probe = 'induction'")
    said = mneme("show", trial["trial_id"][:9])
    for word in (
        "promptset_spec.parameters.period",
        "code.mneme.probes.induction",
        "sha256",
        "torch",
        "item_scores",
        "(current)",
    ):
        assert word in said


def test_a_run_ends_with_a_question_that_its_results_answer(mneme: Command) -> None:
    said = mneme("run", "planted")
    question = next(line for line in said.splitlines() if line.startswith("next")).split('sql "')[1].removesuffix('"')
    assert question == "select * from mart.head_ranking where probe = 'induction' order by rank limit 5"
    assert "(5 rows)" in mneme("sql", question)
    alone = mneme("run", "planted", "--set", "probes=[previous_token]")
    assert "where probe = 'previous_token'" in alone


def test_forget_removes_a_trial_and_the_next_run_brings_it_back(mneme: Command, home: Home) -> None:
    mneme("run", "planted")
    (trial,) = rows(home, "select trial_id from mart.trials where probe = 'induction'")
    mneme("forget", trial["trial_id"])
    assert rows(home, "select count(*) as n from raw.trials where probe = 'induction'") == [{"n": 0}]
    assert rows(home, "select count(*) as n from raw.item_scores")[0]["n"] > 0
    assert "computed now: 1 trials" in mneme("run", "planted")
    assert len(rows(home, "select * from mart.head_ranking where probe = 'induction'")) == 8


def test_gc_says_what_the_store_holds_and_frees_it_without_losing_a_number(mneme: Command, home: Home) -> None:
    mneme("run", "planted")
    before = rows(home, "select * from mart.item_scores order by all")
    assert "captured activations" in mneme("gc")
    assert "freed" in mneme("gc", "--free", "trace,measure")
    assert not list(home.store.glob("objects/*/*/site.safetensors"))
    assert "computed now: 0 trials, 0 forward passes" in mneme("run", "planted")
    assert rows(home, "select * from mart.item_scores order by all") == before


def test_report_rebuild_list_and_views_answer(mneme: Command, home: Home, tmp_path: Path) -> None:
    mneme("run", "planted")
    page = tmp_path / "page.html"
    assert mneme("report", "planted", "-o", str(page)).strip() == str(page)
    assert "http" not in page.read_text().replace("http://www.w3.org", "")
    assert "lake files" in mneme("rebuild")
    assert "planted" in mneme("list", "models")
    assert "fraction of attention" in mneme("sql", "select distinct unit from mart.head_ranking")
    assert "one row per trial, layer and head" in mneme("views")


def test_sql_needs_neither_torch_nor_prefect_nor_mlflow(mneme: Command, home: Home) -> None:
    mneme("run", "planted")
    script = (
        "import sys; sys.argv = ['mneme', 'sql', 'select count(*) from trials']\n"
        "from flows.cli.app import main\n"
        "try: main()\nexcept SystemExit as leaving: assert not leaving.code\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'transformers', 'pandera', 'polars', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
