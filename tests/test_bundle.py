"""Sealing, reading and naming bundles."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_bytes import GOLDEN, GOLDEN_INT8, copy_golden, message, reseal, varint

from distill.errors import BundleError
from distill.files import new_folder
from distill.task import Task
from export.bundle import Bundle, FileEntry, read_bundle, read_files, seal
from export.manifest import BUNDLE_FORMAT, is_safe_name, parse_manifest
from export.wire import _varint, outside_references

pytestmark = pytest.mark.runtime

TASK = Task("classification", ("no", "yes"), max_length=16)


def sealed(folder: Path) -> Bundle:
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"abc")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    return seal(
        folder,
        task=TASK,
        precision="fp32",
        model_file="onnx/model.onnx",
        opset=20,
        inputs=["input_ids", "attention_mask"],
        outputs=["logits"],
        cpu={"model": "a CPU", "flags": ["avx2"]},
        details={"parity": {"max_abs": 1e-7, "n": 32}},
    )


def test_a_sealed_folder_reads_back_as_it_was(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        written = sealed(folder)
    read = read_bundle(tmp_path / "bundle")
    assert read == replace(written, folder=(tmp_path / "bundle").resolve())
    assert read.task == TASK
    assert read.inputs == ("input_ids", "attention_mask")
    assert read.details["parity"]["n"] == 32
    assert sorted(read.files) == ["README.md", "config.json", "onnx/model.onnx", "tokenizer.json"]
    # printf abc | sha256sum
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read.files["onnx/model.onnx"] == FileEntry(3, abc)
    assert read.model_path.read_bytes() == b"abc"
    assert read.bytes == sum(entry.bytes for entry in read.files.values())


def test_the_id_is_the_hash_of_the_manifest(tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    assert bundle.id == hashlib.sha256((tmp_path / "bundle.json").read_bytes()).hexdigest()
    assert reseal(tmp_path).id == bundle.id
    assert reseal(tmp_path, opset=21).id != bundle.id


def test_the_manifest_says_what_the_format_promises(tmp_path: Path) -> None:
    sealed(tmp_path)
    value = json.loads((tmp_path / "bundle.json").read_text())
    described = ["precision", "model", "opset", "inputs", "outputs", "cpu", "details"]
    assert list(value) == ["format", "potstill", "task", *described, "files"]
    assert value["format"] == BUNDLE_FORMAT == 1
    assert value["task"]["labels"] == ["no", "yes"]


def test_sealing_refuses_an_incomplete_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot become a bundle") as caught:
        seal(
            tmp_path,
            task=TASK,
            precision="fp32",
            model_file="onnx/model.onnx",
            opset=20,
            inputs=["input_ids"],
            outputs=["logits"],
            cpu={},
            details={},
        )
    assert caught.value.problems == ("onnx/model.onnx: missing", "tokenizer.json: missing", "config.json: missing")


def test_a_card_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    sealed(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_what_is_returned_is_what_was_hashed() -> None:
    bundle = read_bundle(GOLDEN)
    contents = read_files(bundle, keep=("tokenizer.json",))
    assert list(contents) == ["tokenizer.json"]
    assert hashlib.sha256(contents["tokenizer.json"]).hexdigest() == bundle.files["tokenizer.json"].sha256


@pytest.mark.parametrize("golden", [GOLDEN, GOLDEN_INT8], ids=["fp32", "int8"])
def test_the_golden_bundles_name_nobody_s_machine(golden: Path) -> None:
    for path in golden.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(trace in content for trace in (b"/home", b"/root", b"/tmp", b"/work", b"site-packages"))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a", True),
        ("onnx/model.onnx", True),
        ("h\u00e9/\u4f60.json", True),
        (".hidden", True),
        ("a..b", True),
        ("", False),
        ("/a", False),
        ("a//b", False),
        ("a/", False),
        ("./a", False),
        ("../a", False),
        ("a/../b", False),
        ("a\\b", False),
        ("C:/a", False),
        ("a\0b", False),
        ("a\nb", False),
        ("bundle.json", False),
        ("Bundle.JSON", False),
        ("x" * 256, False),
    ],
)
def test_safe_names(name: str, safe: bool) -> None:
    assert is_safe_name(name) is safe


@given(st.text(max_size=30))
def test_a_safe_name_never_leaves_its_folder(name: str) -> None:
    if is_safe_name(name):
        root = Path("/somewhere/else")
        assert (root / name).is_relative_to(root)
        assert ".." not in (root / name).parts


@given(st.binary(max_size=200))
def test_random_bytes_are_never_a_manifest(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data)


GOOD = json.loads((GOLDEN / "bundle.json").read_text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_a_manifest_with_any_other_value_is_read_or_refused(key: str, value: object) -> None:
    data = json.dumps({**GOOD, key: value}).encode()
    try:
        parse_manifest(data)
    except BundleError as error:
        assert str(error)


@given(st.integers(0, 2**63))
def test_numbers_of_the_wire_format(value: int) -> None:
    assert _varint(varint(value), 0) == (value, len(varint(value)))


@given(st.binary(max_size=300))
def test_random_bytes_are_scanned_or_refused(data: bytes) -> None:
    try:
        assert isinstance(outside_references(data), list)
    except ValueError as error:
        assert str(error)


@given(st.data())
def test_a_mutated_model_is_scanned_or_refused(data: st.DataObject) -> None:
    model = bytearray((GOLDEN / "onnx" / "model.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        outside_references(bytes(model))
    except ValueError as error:
        assert str(error)


def test_deep_subgraphs_do_not_exhaust_the_stack() -> None:
    graph = b""
    for _ in range(5_000):
        graph = message((1, message((5, message((6, graph))))))
    assert outside_references(message((7, graph))) == []


def test_a_copied_bundle_has_the_same_id(tmp_path: Path) -> None:
    assert read_bundle(copy_golden(tmp_path)).id == read_bundle(GOLDEN).id
