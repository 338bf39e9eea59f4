"""A backup holds what lasts, and becomes a home again whole or not at all."""

from __future__ import annotations

import io
import json
import random
import re
import sqlite3
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mneme.errors import BadInput
from storage.backup import back_up
from storage.content import ContentStore
from storage.duck import WarehouseError
from storage.entries import sealed
from storage.home import Home
from storage.lake import Lake
from storage.locks import file_lock
from storage.manifest import NAME, Manifest, is_durable
from storage.parquet import LAYOUT
from storage.restoring import restore
from storage.warehouse import publish
from tests.storage.published import contents, one_trial
from tests.storage.rows import deliver_answer, deliver_head_scores, deliver_trial

TOKEN = "hf_averysecrettoken"
SCHEMA = """
create table experiments (experiment_id integer, name text, artifact_location text);
create table runs (run_uuid text, status text, end_time integer, artifact_uri text);
create table datasets (name text, dataset_source text);
create table secrets (secret_id text, encrypted_value text);
"""


def entry(home: Home, key: str, value: dict[str, object]) -> None:
    home.entries.mkdir(parents=True, exist_ok=True)
    (home.entries / key).write_text(json.dumps({"metadata": {}, "result": json.dumps(sealed(value))}))


def stored(home: Home, stage: str, text: str) -> Path:
    """An object of one file, and the entry of a stage that names it."""
    store = ContentStore(home.store)
    reference = store.put_file("items.bin", lambda path: path.write_text(text))
    entry(home, f"{stage}-key", {"stage": stage, "object": reference.to_json()})
    return store.file(reference)


def mlflow(home: Home) -> None:
    """MLflow's database as far as a backup knows it, with one finished and one open run and an artifact."""
    artifacts = f"{home.mlflow_artifacts.as_uri()}/s"
    with sqlite3.connect(home.mlflow_database) as connection:
        connection.executescript(SCHEMA)
        connection.execute("insert into experiments values (0, 'Default', '/elsewhere'), (1, 's', ?)", [artifacts])
        for run, status in (("r1", "FINISHED"), ("r2", "RUNNING")):
            connection.execute("insert into runs values (?, ?, null, ?)", [run, status, f"{artifacts}/{run}/artifacts"])
        source = json.dumps({"uri": f"{home.store}/objects/ab/prompts.parquet"})
        connection.execute("insert into datasets values ('p', ?)", [source])
        connection.execute("insert into secrets values ('s', ?)", [TOKEN])
    connection.close()
    picture = home.mlflow_artifacts / "s" / "r1" / "artifacts" / "heat map.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"png")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a published trial, objects of two stages, MLflow's files, and much that must stay out."""
    made = Home(tmp_path / "home")
    one_trial(made)
    publish(made)
    for stage in ("measure", "trace"):
        stored(made, stage, f"of {stage}")
    mlflow(made)
    for name in (
        ".env",
        "prefect/profiles.toml",
        "hub/token",
        "store/scratch/1/x",
        "training/m/state.json",
        "lake/.x.tmp",
    ):
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text(TOKEN)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def names(backup: Path) -> list[str]:
    with tarfile.open(backup) as archive:
        return archive.getnames()


def question(database: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(database)
    rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


def test_a_restored_home_holds_the_same_rows_and_what_deliveries_need(home: Home, folder: Path, tmp_path: Path) -> None:
    done = back_up(home, folder)
    assert re.fullmatch(r"mneme-\d{8}-\d{6}\.tar", done.path.name)
    assert (done.n_files, done.n_bytes) == (len(names(done.path)) - 1, done.path.stat().st_size)
    back = Home(tmp_path / "back")
    restored = restore(folder, back)
    assert (restored.source, restored.n_files, restored.kept_aside) == (done.path, done.n_files, None)
    assert (restored.published.warnings, restored.published.promises_broken) == ((), ())
    assert contents(back) == contents(home)
    assert [path.read_text() for path in back.store.rglob("items.bin")] == ["of measure"]
    assert (back.entries / "measure-key").read_bytes() == (home.entries / "measure-key").read_bytes()
    assert (back.mlflow_artifacts / "s" / "r1" / "artifacts" / "heat map.png").read_bytes() == b"png"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_only_what_lasts_enters_and_no_secret(home: Home, folder: Path) -> None:
    path = back_up(home, folder / "b.tar").path
    held = names(path)
    assert held[-1] == NAME
    assert {name.split("/")[0] for name in held[:-1]} == {"lake", "store", "mlflow.db", "mlartifacts"}
    assert not [name for name in held if re.search(r"trace|scratch|prefect|hub|training|env|tmp", name)]
    assert TOKEN.encode() not in path.read_bytes()
    assert [path.name for path in folder.iterdir()] == ["b.tar"]


def test_what_an_answer_names_is_copied_after_the_answer(home: Home, folder: Path) -> None:
    held = names(back_up(home, folder).path)
    rooms = [name.rsplit("/", 1)[0] if name.startswith("lake/") else name.split("/")[0] for name in held]
    assert rooms[0] == "store"
    assert (
        rooms.index("lake/answers") < rooms.index("lake/trials") < rooms.index("mlflow.db") < rooms.index("mlartifacts")
    )


def test_mlflow_knows_its_new_place_and_no_run_stays_open(home: Home, folder: Path, tmp_path: Path) -> None:
    back = Home(tmp_path / "it's back")
    restore(back_up(home, folder).path, back)
    place = f"{back.mlflow_artifacts.as_uri()}/s"
    assert question(back.mlflow_database, "select name, artifact_location from experiments order by experiment_id") == [
        ("Default", "/elsewhere"),
        ("s", place),
    ]
    assert question(back.mlflow_database, "select run_uuid, status, artifact_uri from runs order by run_uuid") == [
        ("r1", "FINISHED", f"{place}/r1/artifacts"),
        ("r2", "KILLED", f"{place}/r2/artifacts"),
    ]
    ((source,),) = question(back.mlflow_database, "select dataset_source from datasets")
    assert json.loads(str(source)) == {"uri": f"{back.store}/objects/ab/prompts.parquet"}
    assert question(back.mlflow_database, "select count(*) from runs where end_time is null") == [(1,)]


def test_a_backup_while_writers_deliver_and_publish_is_whole(home: Home, folder: Path, tmp_path: Path) -> None:
    is_over, lake = threading.Event(), Lake(home.lake)

    def deliver() -> None:
        for number in range(10_000):
            if is_over.is_set():
                break
            deliver_head_scores(lake, f"w{number}", {(0, 0): 0.5})
            deliver_trial(lake, f"w{number}", trial_id=f"w{number % 7}")
            deliver_answer(lake, "s", f"w{number % 7}", f"w{number}")

    writer = threading.Thread(target=deliver)
    writer.start()
    try:
        for number in range(3):
            back_up(home, folder / f"{number}.tar")
            publish(home)
    finally:
        is_over.set()
        writer.join()
    for number in range(3):
        published = restore(folder / f"{number}.tar", Home(tmp_path / f"back{number}")).published
        assert (published.warnings, published.promises_broken) == ((), ())


def test_progress_is_told_in_bytes_up_to_the_whole(home: Home, folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = back_up(home, folder, lambda done, total, note="": told.append((done, total))).path
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 1000
    told.clear()
    restore(path, Home(tmp_path / "back"), progress=lambda done, total, note="": told.append((done, total)))
    assert told == sorted(told)
    assert {total for _, total in told} == {path.stat().st_size}


def test_a_home_that_is_there_is_refused_unless_asked_and_then_kept(home: Home, folder: Path) -> None:
    path, before = back_up(home, folder).path, contents(home)
    deliver_head_scores(Lake(home.lake), "d1", {(0, 0): 0.75})
    publish(home)
    with pytest.raises(BadInput, match=r"holds a home already: name another folder with --home, or ask for --replace"):
        restore(path, home)
    with (
        file_lock(home.locks / "warehouse.lock"),
        pytest.raises(BadInput, match=r"is being published into: wait until that has ended"),
    ):
        restore(path, home, replace=True)
    aside = restore(path, home, replace=True).kept_aside
    assert contents(home) == before
    assert aside is not None
    assert contents(Home(aside)) != before
    assert (aside / ".env").read_text() == TOKEN


def test_an_empty_folder_is_no_home(home: Home, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    assert restore(back_up(home, folder).path, Home(tmp_path / "back")).kept_aside is None


def rewritten(backup: Path, change: Callable[[dict[str, bytes]], None], target: Path) -> Path:
    """A backup with other files in it."""
    with tarfile.open(backup) as archive:
        files = {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}
    change(files)
    with tarfile.open(target, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


def with_manifest(files: dict[str, bytes], /, **changes: object) -> None:
    manifest = Manifest.from_bytes(files[NAME])
    assert manifest is not None
    files[NAME] = Manifest(**{**vars(manifest), **changes}).to_bytes()


LAKE_FILE = "lake/head_scores/d1.parquet"
DAMAGES: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "an altered file": (
        lambda files: files.update({LAKE_FILE: files[LAKE_FILE][:-1] + b"x"}),
        f"{LAKE_FILE} is missing, alt",
    ),
    "a missing file": (lambda files: files.pop(LAKE_FILE), f"{LAKE_FILE} is missing, altered or foreign"),
    "a file too many": (
        lambda files: files.update({"lake/trials/x.parquet": b"x"}),
        "lake/trials/x.parquet is missing",
    ),
    "two files": (lambda files: (files.pop(LAKE_FILE), files.pop("mlflow.db")), " and 1 more are missing"),
    "no manifest": (lambda files: files.pop(NAME), "it ends without manifest.json"),
    "an altered manifest": (
        lambda files: files.update({NAME: files[NAME].replace(b"home", b"hime")}),
        "it ends without",
    ),
    "a way out": (lambda files: files.update({"lake/../../out": b"x"}), "it holds 'lake/../../out', which no backup"),
    "an absolute path": (lambda files: files.update({"/tmp/out": b"x"}), "it holds '/tmp/out', which no backup holds"),
    "a foreign room": (lambda files: files.update({"prefect/x": b"x"}), "it holds 'prefect/x', which no backup holds"),
    "a later version": (
        lambda files: with_manifest(files, layout=LAYOUT + 1, mneme="9.9"),
        r"later version of Mneme \(9.9",
    ),
    "no database": (
        lambda files: (files.update({"mlflow.db": b"no database" * 99}), with_manifest(files, files=_hashes(files))),
        "mlflow.db is damaged",
    ),
}


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    from hashlib import sha256

    return {name: sha256(data).hexdigest() for name, data in files.items() if name != NAME}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_backup_is_one_sentence_and_restores_nothing(
    home: Home, folder: Path, tmp_path: Path, damage: str
) -> None:
    change, sentence = DAMAGES[damage]
    path = rewritten(back_up(home, folder).path, lambda files: void(change(files)), folder / "damaged.tar")
    place = tmp_path / "restored" / "back"
    with pytest.raises(BadInput, match=sentence) as refused:
        restore(path, Home(place))
    assert "\n" not in str(refused.value)
    assert not list(place.parent.iterdir())


def void(_result: object) -> None:
    """Take no notice."""


def test_links_and_folders_in_a_backup_are_refused(home: Home, folder: Path, tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("lake/trials/link")
        info.type, info.linkname = kind, "/etc/passwd"
        with tarfile.open(folder / "b.tar", "w") as archive:
            archive.addfile(info)
        with pytest.raises(BadInput, match="it holds 'lake/trials/link', which no backup holds; nothing was restored"):
            restore(folder / "b.tar", Home(tmp_path / "back"))


def test_a_backup_cut_or_altered_anywhere_is_refused(home: Home, folder: Path, tmp_path: Path) -> None:
    whole, draw = back_up(home, folder).path.read_bytes(), random.Random(0)
    path = folder / "cut.tar"
    end = whole.rindex(b"}") + 1  # behind it there is padding alone
    for _ in range(12):
        path.write_bytes(whole[: draw.randrange(end)])
        with pytest.raises(BadInput, match="nothing was restored"):
            restore(path, Home(tmp_path / "back"))
    with tarfile.open(folder / back_up(home, folder / "again.tar").path.name) as archive:
        places = [member.offset_data + draw.randrange(member.size) for member in archive if member.size]
    again = (folder / "again.tar").read_bytes()
    for place in draw.sample(places, min(8, len(places))):
        path.write_bytes(again[:place] + bytes([again[place] ^ 1]) + again[place + 1 :])
        with pytest.raises(BadInput, match="nothing was restored"):
            restore(path, Home(tmp_path / "back"))
    for text in (b"", b"text", zlib.compress(whole), bytes(20_000)):
        path.write_bytes(text)
        with pytest.raises(BadInput, match="is damaged or no backup of Mneme"):
            restore(path, Home(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_place_that_cannot_be_is_named(home: Home, folder: Path, tmp_path: Path) -> None:
    (folder / "there.tar").write_text("x")
    for target, sentence in (
        (folder / "there.tar", "is there already: name a new file"),
        (folder / "nowhere" / "b.tar", r"there is no folder .*nowhere: make it first"),
        (home.root / "b.tar", "lies in the home and would go with it"),
        (home.lake, "lies in the home"),
    ):
        with pytest.raises(BadInput, match=sentence):
            back_up(home, target)
    with pytest.raises(BadInput, match="there is nothing to back up in"):
        back_up(Home(tmp_path / "empty"), folder)
    (folder / "there.tar").unlink()
    for source, sentence in (
        (folder, r"holds no backup \(mneme-\*\.tar\): name the file"),
        (folder / "nowhere.tar", "there is no backup .*nowhere.tar' that can be read"),
    ):
        with pytest.raises(BadInput, match=sentence):
            restore(source, Home(tmp_path / "back"))
    (tmp_path / "file").write_text("x")
    path = back_up(home, folder).path
    for place, sentence in ((tmp_path / "file", "is a file: name a folder"), (Path("/"), "is a mount point")):
        with pytest.raises(BadInput, match=sentence):
            restore(path, Home(place))


def test_a_damaged_database_of_mlflow_is_named_and_leaves_no_backup(home: Home, folder: Path) -> None:
    home.mlflow_database.write_bytes(b"no database" * 999)
    with pytest.raises(BadInput, match=r"mlflow\.db cannot be copied .*: close what holds it"):
        back_up(home, folder)
    assert list(folder.iterdir()) == []


def test_a_home_of_a_later_version_is_not_backed_up(home: Home, folder: Path) -> None:
    path = home.lake / "head_scores" / "d2.parquet"
    later = [f"layout:{layout:04d}".encode() for layout in (LAYOUT, LAYOUT + 1)]
    path.write_bytes((home.lake / "head_scores" / "d1.parquet").read_bytes().replace(*later))
    with pytest.raises(WarehouseError, match="later version of Mneme: update Mneme"):
        back_up(home, folder)


def test_names_that_leave_their_room_are_not_durable() -> None:
    for name in ("lake/trials/d1.parquet", "store/entries/k", "mlartifacts/s/x y.png", "mlflow.db", "store/ö"):
        assert is_durable(name)
    for name in ("", "lake", "lake/", "lake//x", "/lake/x", "lake/./x", "lake/../x", "../lake/x", "lake/a\0b", ".env"):
        assert not is_durable(name)
