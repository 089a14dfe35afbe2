"""Damaged, incomplete, hostile and foreign bundles are refused before they answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_bytes import (
    FLOAT,
    GOLDEN,
    INT32,
    INT64,
    bundle_of,
    copy_golden,
    external,
    message,
    model,
    node,
    reseal,
    value_info,
)

from distill.errors import BundleError
from export.bundle import read_bundle
from export.runtime import load, verify_bundle
from export.wire import outside_references

pytestmark = pytest.mark.runtime

FILES = ("README.md", "config.json", "onnx/model.onnx", "tokenizer.json")


def refusal(folder: Path) -> str:
    """The message with which a bundle is refused, which must end a command with 4."""
    with pytest.raises(BundleError) as caught:
        load(folder, threads=1)
    assert caught.value.exit_code == 4
    return str(caught.value)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change bundle.json as a value."""
    value = json.loads((folder / "bundle.json").read_text())
    change(value)
    (folder / "bundle.json").write_text(json.dumps(value))
    return folder


# --- one bit flipped, files missing, cut, empty, extra -----------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_flipped_bit_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    folder = copy_golden(tmp_path_factory.mktemp("flipped"))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    expected = read_bundle(GOLDEN).files[name].sha256
    assert re.search(rf"  - {re.escape(name)}: expected sha256 {expected}, found [0-9a-f]{{64}}", refusal(folder))


@pytest.mark.parametrize("name", FILES)
def test_missing_cut_and_empty_files_are_named(tmp_path: Path, name: str) -> None:
    folder = copy_golden(tmp_path)
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 1)
    assert f"{name}: expected {size} bytes, found {size - 1}" in refusal(folder)
    os.truncate(folder / name, 0)
    assert f"{name}: expected {size} bytes, found 0" in refusal(folder)
    (folder / name).unlink()
    assert f"{name}: No such file" in refusal(folder)


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    for name in FILES:
        (folder / name).unlink()
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert len(caught.value.problems) == 4


def test_a_file_that_was_added_is_warned_of(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    (folder / "onnx" / "notes.txt").write_text("hello")
    (folder / ".gitattributes").write_text("hidden files belong to whoever stores the bundle")
    with pytest.warns(UserWarning, match=r"bundle.json does not list: onnx/notes.txt$"):
        load(folder, threads=1)


def test_without_verify_the_sizes_are_still_compared(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    (folder / "README.md").write_text("changed")
    assert load(folder, threads=1, verify=False)(["a"])
    os.truncate(folder / "tokenizer.json", 100)
    with pytest.raises(BundleError, match="expected 3501 bytes, found 100"):
        load(folder, threads=1, verify=False)


# --- bundle.json ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[]", "expected a JSON object, found list"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"format": 1, "format": 1}', "stands twice"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"format": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"format": "1"}', "no format number"),
        (b'{"format": true}', "no format number"),
        (b"{}", "no format number"),
        (b'{"format": 1, "x": "\\ud800"}', "lone surrogate"),
        (b'{"format": 2, "potstill": "9.9"}', "has format 2, this potstill reads format 1"),
        (b'{"format": 2, "potstill": "9.9"}', "written by 9.9"),
        (b" " * (4 * 2**20 + 1), "larger than"),
    ],
)
def test_unreadable_manifests(tmp_path: Path, content: bytes, wanted: str) -> None:
    folder = copy_golden(tmp_path)
    (folder / "bundle.json").write_bytes(content)
    assert wanted in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("task", None, "task: the task is not a JSON object"),
        (
            "task",
            {"kind": "poetry", "labels": ["a", "b"]},
            "kind: expected one of classification, translation, found 'poetry'",
        ),
        ("precision", "int3", "precision: expected one of fp32"),
        ("precision", ["fp32"], "precision: expected one of fp32"),
        ("model", 3, "model: expected the name"),
        ("model", "onnx/other.onnx", "'onnx/other.onnx' is not listed"),
        ("opset", 0, "opset: expected a whole number"),
        ("opset", 20.0, "opset: expected a whole number"),
        ("inputs", "input_ids", "inputs: expected different names"),
        ("inputs", ["a", "a"], "inputs: expected different names"),
        ("outputs", [], "outputs: expected different names"),
        ("outputs", [{}], "outputs: expected different names"),
        ("cpu", [], "cpu: expected an object"),
        ("details", None, "details: expected an object"),
        ("potstill", 1, "potstill: expected the version"),
        ("files", [], "files: expected an object"),
    ],
)
def test_manifests_with_wrong_values(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    folder = rewrite(copy_golden(tmp_path), lambda manifest: manifest.update({key: value}))
    assert wanted in refusal(folder)


def test_all_wrong_values_are_named_at_once(tmp_path: Path) -> None:
    folder = rewrite(copy_golden(tmp_path), lambda manifest: manifest.update(opset=0, cpu=0, files=0, task=0))
    assert len(refusal(folder).splitlines()) == 5


ENTRY = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("name", "entry", "wanted"),
    [
        ("../secret", ENTRY, "not a plain relative name"),
        ("onnx/../../secret", ENTRY, "not a plain relative name"),
        ("/etc/passwd", ENTRY, "not a plain relative name"),
        ("onnx\\model", ENTRY, "not a plain relative name"),
        ("C:/windows", ENTRY, "not a plain relative name"),
        ("a\0b", ENTRY, "not a plain relative name"),
        ("bundle.json", ENTRY, "not a plain relative name"),
        ("Config.json", ENTRY, "'config.json' and 'Config.json' are one file on some systems"),
        ("a", {"bytes": -1, "sha256": "0" * 64}, "has no bytes"),
        ("a", {"bytes": 2**31, "sha256": "0" * 64}, "has no bytes"),
        ("a", {"bytes": True, "sha256": "0" * 64}, "has no bytes"),
        ("a", {"bytes": 1, "sha256": "0" * 63}, "has no bytes"),
        ("a", "0" * 64, "has no bytes"),
    ],
)
def test_manifests_with_wrong_files(tmp_path: Path, name: str, entry: object, wanted: str) -> None:
    folder = rewrite(copy_golden(tmp_path), lambda manifest: manifest["files"].update({name: entry}))
    assert wanted in refusal(folder)


@pytest.mark.parametrize("path", ["", "nowhere", "a\0b", "x" * 5000, "\ud800"])
def test_paths_that_are_no_bundle(tmp_path: Path, path: str) -> None:
    assert "is not a bundle" in refusal(tmp_path / path)


# --- links ------------------------------------------------------------------------------------


def test_a_bundle_in_a_hub_cache_loads(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    shutil.copytree(GOLDEN, snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    (tmp_path / "link").symlink_to(snapshot)
    assert load(tmp_path / "link", threads=1)(["a gorgeous film"])[0].label == "neutral"


def test_a_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    assert "tokenizer.json: a link that leads out of the bundle" in refusal(folder)


def test_a_link_loop_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    for name in ("tokenizer.json", "config.json", "README.md"):
        (folder / name).unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    (folder / "config.json").mkdir()
    os.mkfifo(folder / "README.md")
    found = refusal(folder)
    assert "README.md: not a plain file" in found
    assert "config.json: not a plain file" in found
    assert "tokenizer.json: " in found


# --- external data ----------------------------------------------------------------------------

PLACES = ("weights.bin", "../../etc/passwd", "/etc/passwd", "a/../../x", "*/_ORT_MEM_ADDR_/*", "")


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 16)
    bundle = bundle_of(tmp_path, model(tensors=[external("outside", place)]))
    assert "tensor 'outside' keeps its data in another file" in refusal(bundle.folder)


OUTSIDE = external("w", "weights.bin")
SPARSE = message((1, OUTSIDE))
IN_ATTRIBUTE = message((1, "value"), (5, OUTSIDE), (20, 4))


@pytest.mark.parametrize(
    "content",
    [
        message((7, message((5, OUTSIDE)))),
        message((7, message((5, message((8, "w"), (14, 1)))))),
        message((7, message((5, message((8, "w"), (13, message((1, "location")))))))),
        message((7, message((15, SPARSE)))),
        message((7, message((15, message((2, OUTSIDE)))))),
        message((7, message((1, node("Constant", [], ["w"], [IN_ATTRIBUTE]))))),
        message((7, message((1, node("Constant", [], ["w"], [message((10, OUTSIDE))]))))),
        message((7, message((1, node("Constant", [], ["w"], [message((22, SPARSE))]))))),
        message((7, message((1, node("Constant", [], ["w"], [message((23, SPARSE))]))))),
        message((7, message((1, node("If", ["c"], ["w"], [message((6, message((5, OUTSIDE))))]))))),
        message((7, message((1, node("If", ["c"], ["w"], [message((11, message((5, OUTSIDE))))]))))),
        message((25, message((7, node("Constant", [], ["w"], [IN_ATTRIBUTE]))))),
        message((25, message((11, IN_ATTRIBUTE)))),
        message((20, message((1, message((5, OUTSIDE)))))),
        message((7, message((5, OUTSIDE))), (7, message((2, "the second graph is merged into the first")))),
        message((7, message((1, node("EPContext", [], ["w"], domain="com.microsoft"))))),
    ],
)
def test_external_data_is_found_wherever_it_hides(content: bytes) -> None:
    assert len(outside_references(content)) == 1


def test_onnxruntime_itself_finds_no_file_for_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second bar: even a reference that the scan did not know would have no folder to be found in."""
    import onnxruntime

    from export.session import _options

    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 16)
    graph = message(
        (1, node("Add", ["x", "w"], ["y"])),
        (2, "graph"),
        (5, external("w", "weights.bin")),
        (11, value_info("x", FLOAT, [4])),
        (12, value_info("y", FLOAT, [4])),
    )
    content = message((1, 10), (7, graph), (8, message((1, ""), (2, 20))))
    with pytest.raises(Exception, match="External data path does not exist"):
        onnxruntime.InferenceSession(content, _options(onnxruntime, "cpu", 1), providers=["CPUExecutionProvider"])


# --- models this onnxruntime cannot run, or that are not the ones described ----------------------


def test_the_model_written_byte_by_byte_runs(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, model())
    assert load(bundle.folder, threads=1).logits(["a", "b"]).shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "No graph"),
        (b"garbage", "is not an ONNX model"),
        (b"\0\0\0\0ORTM" + b"\0" * 40, "is not an ONNX model"),
        (
            model(opset=99),
            r"needs opset 99 of ai.onnx, onnxruntime \S+ supports up to \d+; upgrade onnxruntime or export",
        ),
        (model(ir=99), r"has IR version 99, onnxruntime \S+ supports up to \d+; upgrade"),
        (model(op="Distil", domain="my.domain"), r"has no operator my.domain:Distil\(-1\); upgrade it or export again"),
        (model(op="Distil"), r"has no operator Distil; upgrade it or export again"),
        (model(op="Add"), "cannot be run"),
        (model(weights=[1.0]), "is not an ONNX model|cannot be run"),
    ],
)
def test_models_that_cannot_run(tmp_path: Path, content: bytes, wanted: str) -> None:
    found = refusal(bundle_of(tmp_path, content).folder)
    assert re.search(wanted, found), found
    assert "onnxruntime_src" not in found
    assert len(found.splitlines()) == 1


IDS = {"input_ids": (INT64, ["texts", "length"])}
MASK = {"attention_mask": (INT64, ["texts", "length"])}


FIVE: list[list[int | str]] = [["texts", "labels"], ["texts", 5]]


@pytest.mark.parametrize(
    ("content", "changes", "wanted"),
    [
        (model(), {"inputs": ["input_ids", "x"]}, "inputs: expected input_ids, x, found input_ids"),
        (model(inputs={**IDS, **MASK}), {}, "inputs: expected input_ids, found input_ids, attention_mask"),
        (model(inputs=MASK), {"inputs": ["attention_mask"]}, "there is no input_ids"),
        (model(inputs={**IDS, "x": IDS["input_ids"]}), {"inputs": ["input_ids", "x"]}, "input x: expected"),
        (model(inputs={"input_ids": (INT64, ["length"])}, labels=2), {}, "found tensor(int64) (length)"),
        (model(output=("scores", FLOAT, ["texts", 3])), {}, "outputs: expected logits alone, found scores"),
        (model(output=("logits", FLOAT, ["texts", 3])), {"outputs": ["logits", "x"]}, "outputs: expected logits, x"),
        (model(labels=5, output=("logits", FLOAT, FIVE[0])), {}, "expected floats (texts, 3), found tensor(float)"),
        (model(labels=5, output=("logits", FLOAT, FIVE[1])), {}, "found tensor(float) (texts, 5)"),
    ],
)
def test_models_that_are_not_those_described(tmp_path: Path, content: bytes, changes: Any, wanted: str) -> None:
    bundle = bundle_of(tmp_path, content, **changes)
    assert wanted in refusal(bundle.folder)


def test_one_answer_a_text_or_none(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, model(axis=0))  # the mean over the texts instead of over the tokens
    with pytest.raises(BundleError, match=r"answered \(5, 3\), expected 3 logits a text"):
        load(bundle.folder, threads=1)(["a gorgeous film"])


def test_an_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, model(weights=[float("nan")] * 600))
    with pytest.raises(BundleError, match="NaN or infinite logits"):
        load(bundle.folder, threads=1)(["a"])
    with pytest.raises(BundleError, match="NaN or infinite logits"):
        verify_bundle(bundle.folder)


def test_int32_inputs_are_fed_as_int32(tmp_path: Path) -> None:
    int64, int32 = model(), model(inputs={"input_ids": (INT32, ["texts", "length"])})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    texts = ["a gorgeous film", "dull"]
    answers = [
        load(bundle_of(tmp_path / name, content).folder, threads=1).logits(texts)
        for name, content in (("a", int64), ("b", int32))
    ]
    assert (answers[0] == answers[1]).all()


# --- tokenizers that do not fit -----------------------------------------------------------------


def respell(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change one of the bundle's JSON files, and seal it again."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    reseal(folder)


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        (
            "config.json",
            lambda value: value.update(vocab_size=50),
            "makes ids up to 199, the model has 50 embedding rows",
        ),
        ("config.json", lambda value: value.update(pad_token_id=4000), "padding has id 4000"),
        (
            "config.json",
            lambda value: value.update(max_position_embeddings=31),
            "max_length is 32, the model has 31 positions",
        ),
        ("config.json", lambda value: value.update(model_type="roberta", pad_token_id=1), "the model has 30 positions"),
        ("config.json", lambda value: value.pop("vocab_size"), "expected a vocab_size, found None"),
        ("config.json", lambda value: value.update(vocab_size=True), "expected a vocab_size, found True"),
        ("tokenizer.json", lambda value: value.update(post_processor=None), "adds no special tokens"),
        ("tokenizer.json", lambda value: value.update(model={"type": "Novel"}), "tokenizer.json cannot be read"),
        (
            "tokenizer.json",
            lambda value: value["added_tokens"].append({**value["added_tokens"][0], "id": 900, "content": "<new>"}),
            "embedding rows",
        ),
    ],
)
def test_tokenizers_that_do_not_fit(tmp_path: Path, name: str, change: Any, wanted: str) -> None:
    folder = copy_golden(tmp_path)
    respell(folder, name, change)
    assert wanted in refusal(folder)


def test_a_truncated_tokenizer_under_a_right_hash_is_refused(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    os.truncate(folder / "tokenizer.json", 1000)
    reseal(folder)
    assert "tokenizer.json cannot be read" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff"])
def test_configs_that_are_none(tmp_path: Path, content: bytes) -> None:
    folder = copy_golden(tmp_path)
    (folder / "config.json").write_bytes(content)
    reseal(folder)
    assert "config.json" in refusal(folder)


def test_a_maximum_length_without_room_for_text(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path)
    task = replace(read_bundle(folder).task, max_length=3, pair="other")
    reseal(folder, task=task)
    assert "max_length 3 leaves no room beside 3 special tokens" in refusal(folder)


def test_a_table_shorter_than_the_config_says_is_found_by_verify(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, model())  # 200 rows
    respell(bundle.folder, "config.json", lambda value: value.update(vocab_size=201))
    with pytest.raises(BundleError, match=r"the model failed: .*indices element out of data bounds"):
        verify_bundle(bundle.folder)


def test_a_sound_bundle_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verify_bundle(GOLDEN).bundle.precision == "fp32"
