"""The content store: whole or not at all, checked when used."""

from pathlib import Path

import pytest

from storage.content import ContentStore, Damaged, Reference


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


def put(store: ContentStore, text: str = "hello") -> Reference:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "deep" / "b.txt").write_text("b")

    return store.put(write)


def test_the_same_content_is_stored_once(store: ContentStore) -> None:
    assert put(store) == put(store)
    assert len(store.addresses()) == 1


def test_a_reference_survives_json(store: ContentStore) -> None:
    reference = put(store)
    assert Reference.from_json(reference.to_json()) == reference


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "folder"])
def test_any_harm_to_any_file_is_noticed_and_mended_by_storing_again(store: ContentStore, harm: str) -> None:
    reference = put(store)
    victim = store.folder(reference) / "deep" / "b.txt"
    if harm == "delete":
        victim.unlink()
    elif harm == "truncate":
        victim.write_text("")
    elif harm == "flip":
        victim.write_text("c")
    else:
        store.remove(reference.address)
    with pytest.raises(Damaged):
        store.folder(reference)
    assert put(store) == reference
    assert (store.folder(reference) / "deep" / "b.txt").read_text() == "b"


def test_an_object_whose_writer_fails_leaves_nothing(store: ContentStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.put(fail)
    assert store.addresses() == []
    assert not list((store.root / "scratch").iterdir())


def test_a_file_object_gives_its_file_back(store: ContentStore) -> None:
    reference = store.put_file("x.bin", lambda path: path.write_bytes(b"123"))
    assert store.file(reference).read_bytes() == b"123"
    assert store.size(reference.address) == 3
