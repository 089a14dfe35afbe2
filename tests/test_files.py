"""Files and folders are whole or not there; JSON of others is read strictly; a full disk is said in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import files
from distill.errors import RunError

pytestmark = pytest.mark.runtime


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_the_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == expected
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"")
    found = files.hash_files(tmp_path)
    assert list(found) == ["a", "sub/b"]
    assert found["a"] == {"bytes": 3, "sha256": expected}
    assert found["sub/b"]["bytes"] == 0


@given(JSON)
def test_json_there_and_back(value: object) -> None:
    assert files.parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        files.parse_json(data)
    except ValueError as error:
        assert str(error)


REFUSED = {
    b"\xff{}": "not UTF-8 at byte 0",
    b'{"a": \xe4}': "not UTF-8 at byte 6",
    b'{"a": 1, "a": 2}': "key 'a' stands twice",
    b"[NaN]": "NaN is not JSON",
    b"[-Infinity]": "-Infinity is not JSON",
    b"[" * 200_000: "nested too deeply",
    b"{": "Expecting property name",
    b"": "Expecting value",
}


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:12]))
def test_json_that_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError, match=REFUSED[data]):
        files.read_json(tmp_path / "x.json")


def test_json_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1, 2, 3]")
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        files.read_json(tmp_path / "x.json", limit=5)


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "x.json", float("nan"))
    assert files.read_json(tmp_path / "x.json") == {"b": 1, "a": "ü"}
    assert names(tmp_path) == ["x.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write in .*missing: No such file or directory"):
        files.write_text(tmp_path / "missing" / "x", "text")


def test_a_new_folder_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with files.new_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_text("1")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "sub" / "weights").read_text() == "1"
    assert names(target.parent) == ["model"]


def test_a_folder_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), files.new_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("1")
        raise KeyError
    assert not names(tmp_path)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(RunError, match="model exists already"), files.new_folder(tmp_path / "model"):
        raise AssertionError


def test_row_8_an_old_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with files.new_folder(target) as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(KeyError), files.new_folder(target, replace=True) as folder:
        raise KeyError
    assert (target / "weights").read_text() == "old"
    with files.new_folder(target, replace=True) as folder:
        (folder / "weights").write_text("new")
        assert (target / "weights").read_text() == "old"
    assert (target / "weights").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_row_7_leftovers_of_dead_processes_are_cleared_up(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    (tmp_path / f".tmp-{dead}-0").mkdir()
    (tmp_path / f".tmp-{dead}-0" / "half").touch()
    (tmp_path / f".tmp-{dead}-run.json").touch()
    (tmp_path / f".tmp-{os.getppid()}-0").mkdir()
    (tmp_path / f".tmp-{os.getpid()}-3").mkdir()
    (tmp_path / "teacher").mkdir()
    assert len(files.tidy(tmp_path)) == 3
    assert sorted(names(tmp_path)) == [f".tmp-{os.getppid()}-0", "teacher"]


def test_an_old_folder_without_successor_gets_its_name_back(tmp_path: Path) -> None:
    for name in (".old-teacher", ".old-student", "student"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    files.tidy(tmp_path)
    assert sorted(names(tmp_path)) == ["student", "teacher"]
    assert (tmp_path / "teacher" / ".old-teacher").exists()
    assert (tmp_path / "student" / "student").exists()


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_row_6_a_full_disk_is_one_line_whoever_says_it(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"^No space left: \d+\.\d MB free in ") as found,
        files.new_folder(tmp_path / "x"),
    ):
        raise error
    assert found.value.exit_code == 1
    assert not names(tmp_path)


def test_an_error_that_is_clear_already_passes(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="needs 3 MB") as found, files.new_folder(tmp_path / "x"):
        raise RunError("No space left: needs 3 MB")
    assert found.value.__cause__ is None


def test_other_errors_are_not_about_the_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.new_folder(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")


def test_row_6_room_is_counted_before_a_write(tmp_path: Path) -> None:
    files.look_for_room(tmp_path, 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(RunError, match=rf"needs {free * 2 / 1e6:.1f} MB, \d+\.\d MB free in .*; make room"):
        files.look_for_room(tmp_path, free * 2)
