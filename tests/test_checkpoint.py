"""Checkpoints: nothing runs because of a folder, labels go by name, and damaged or foreign weights are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_tokenizer
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_model

from distill.checkpoint import fetch, head, load_model, load_tokenizer, open_checkpoint, save
from distill.errors import CheckpointError, RecipeError
from distill.layer_sizes import record_sizes
from distill.layers import layers, model_config
from distill.task import Task

TASK = Task("classification", LABELS, max_length=32)
TURNED = Task("classification", ("good", "bad", "fair"), max_length=32)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A checkpoint as potstill writes it."""
    save(tiny_model("bert"), toy_tokenizer(), TASK, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def foreign(ours: Path) -> Path:
    """The same, as somebody else would have written it."""
    (ours / "task.json").unlink()
    return ours


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, drop: str = "", **changes: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if name != drop}
    save_file({**weights, **changes}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    save(model, toy_tokenizer(), TASK, tmp_path)
    again = load_model(tmp_path)
    assert not again.training
    assert torch.equal(answer(again, tiny_batch()), answer(model, tiny_batch()))
    assert open_checkpoint(tmp_path).task == TASK
    assert load_tokenizer(tmp_path)("good film")["input_ids"] == toy_tokenizer()("good film")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written_by_us", [True, False])
def test_labels_in_another_order_are_mapped_by_name(kind: str, written_by_us: bool, tmp_path: Path) -> None:
    model = tiny_model(kind)
    save(model, toy_tokenizer(), TASK, tmp_path)
    if not written_by_us:
        (tmp_path / "task.json").unlink()
    found = load_model(tmp_path, TURNED)
    assert list(model_config(found).id2label.values()) == ["good", "bad", "fair"]
    assert model_config(found).label2id == {"good": 0, "bad": 1, "fair": 2}
    assert torch.allclose(answer(found, tiny_batch()), answer(model, tiny_batch())[:, [2, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written_by_us", [True, False])
def test_other_labels_get_a_fresh_seeded_head(kind: str, written_by_us: bool, tmp_path: Path) -> None:
    model, other = tiny_model(kind), Task("classification", ("spam", "ham"))
    save(model, toy_tokenizer(), TASK, tmp_path)
    if not written_by_us:
        (tmp_path / "task.json").unlink()
    one, same, different = (load_model(tmp_path, other, seed) for seed in (1, 1, 2))
    assert list(model_config(one).id2label.values()) == ["spam", "ham"]
    assert answer(one, tiny_batch()).shape == (3, 2)
    assert torch.equal(head(one).weight, head(same).weight)
    assert not torch.equal(head(one).weight, head(different).weight)
    for mine, its in zip(layers(one), layers(model), strict=True):
        assert torch.equal(mine.linear("up").weight, its.linear("up").weight)


def test_labels_that_stand_twice_are_not_the_tasks_labels(foreign: Path) -> None:
    change_config(foreign, id2label={"0": "bad", "1": "good", "2": "good"})
    assert list(model_config(load_model(foreign, TASK)).id2label.values()) == list(LABELS)


def test_a_foreign_folder_needs_a_task(foreign: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no task\.json"):
        load_model(foreign)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "config.json",
            {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}},
        ),
        ("config.json", {"trust_remote_code": True}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
        ("config.json", {"attn_implementation": "someone/kernel"}),
        ("config.json", {"text_config": {"deeper": [{"auto_map": {"AutoConfig": "evil.Config"}}]}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
@pytest.mark.parametrize("written_by_us", [True, False])
def test_code_in_the_folder_never_runs(ours: Path, name: str, changes: dict[str, Any], written_by_us: bool) -> None:
    canary = ours / "canary"
    (ours / "evil.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).write_text('sang')\n")
    path = ours / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if not written_by_us:
        (ours / "task.json").unlink()
    with pytest.raises(CheckpointError, match="asks for code from elsewhere, which is never run"):
        load_model(ours, TASK)
    assert not canary.exists()


def test_a_plain_attention_implementation_is_fine(ours: Path) -> None:
    change_config(ours, attn_implementation="eager", trust_remote_code=False)
    assert answer(load_model(ours), tiny_batch()).shape == (3, 3)


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "sang")


@pytest.mark.parametrize("written_by_us", [True, False])
def test_pickled_weights_are_refused_unread(ours: Path, tmp_path: Path, written_by_us: bool) -> None:
    (ours / "model.safetensors").unlink()
    torch.save({"weights": Canary(tmp_path / "canary")}, ours / "pytorch_model.bin")
    if not written_by_us:
        (ours / "task.json").unlink()
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin\); convert pickled weights with safetensors"):
        load_model(ours, TASK)
    assert not (tmp_path / "canary").exists()


def test_pickled_weights_beside_safetensors_are_not_read(foreign: Path, tmp_path: Path) -> None:
    torch.save({"weights": Canary(tmp_path / "canary")}, foreign / "pytorch_model.bin")
    load_model(foreign, TASK)
    assert not (tmp_path / "canary").exists()


def test_everything_that_is_wrong_at_once(ours: Path) -> None:
    change_config(ours, auto_map={"AutoConfig": "evil.Config"})
    (ours / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as found:
        open_checkpoint(ours)
    assert len(found.value.problems) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float) -> None:
    model = tiny_model("bert")
    with torch.no_grad():
        layers(model)[1].linear("up").weight[3, 4] = bad
    with pytest.raises(CheckpointError, match="NaN or infinite") as found:
        save(model, toy_tokenizer(), TASK, tmp_path / "out")
    assert found.value.problems == ("bert.encoder.layer.1.intermediate.dense.weight",)
    assert not (tmp_path / "out").exists()


NAN_BIAS = {"classifier.bias": torch.full((3,), float("nan"))}
SHORT = {"bert.encoder.layer.0.output.dense.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("drop", "changes", "named"),
    [
        ("bert.encoder.layer.2.output.dense.weight", {}, "layer.2.output.dense.weight"),
        ("", SHORT, "layer.0.output.dense.bias"),
    ],
)
@pytest.mark.parametrize("written_by_us", [True, False])
def test_an_encoder_with_gaps_is_refused(
    ours: Path, drop: str, changes: dict[str, torch.Tensor], named: str, written_by_us: bool
) -> None:
    change_weights(ours, drop, **changes)
    if not written_by_us:
        (ours / "task.json").unlink()
    with pytest.raises(CheckpointError) as found:
        load_model(ours, TASK)
    assert named in str(found.value)


def test_a_weight_too_many_is_refused_in_our_own_folders(ours: Path) -> None:
    change_weights(ours, extra=torch.zeros(1))
    with pytest.raises(CheckpointError, match="weights and config do not fit"):
        load_model(ours)


@pytest.mark.parametrize("written_by_us", [True, False])
@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_torn_weights(ours: Path, size: int, written_by_us: bool) -> None:
    path = ours / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    if not written_by_us:
        (ours / "task.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be (read|loaded)"):
        load_model(ours, TASK)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"model_type": "unheard-of"}', '{"a": 1, "a": 2}', "\x00", "[" * 100_000]
)
@pytest.mark.parametrize("name", ["config.json", "task.json"])
def test_broken_json(ours: Path, name: str, text: str) -> None:
    (ours / name).write_text(text)
    with pytest.raises(CheckpointError):
        load_model(ours, TASK)


SIZES = (("hidden_size", 17), ("hidden_size", -16), ("vocab_size", 3), ("intermediate_size", 23))


@pytest.mark.parametrize(
    ("changes", "written_by_us"),
    [
        *(({key: size}, by) for key, size in SIZES for by in (True, False)),
        ({"num_hidden_layers": 2}, True),  # the first layers of a foreign encoder are a whole encoder
    ],
)
def test_sizes_that_do_not_fit_the_weights(ours: Path, changes: dict[str, int], written_by_us: bool) -> None:
    if not written_by_us:
        (ours / "task.json").unlink()
    change_config(ours, **changes)
    with pytest.raises(CheckpointError):
        load_model(ours, TASK)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_a_tokenizer(ours: Path) -> None:
    for path in ours.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(ours)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"version": "1.0", "model": {"type": "Unheard"}}'])
def test_a_broken_tokenizer(ours: Path, text: str) -> None:
    (ours / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(ours)


@pytest.mark.parametrize("name", ["with space", "héllo-模型", "a..b", "UPPER.lower"])
def test_folders_of_any_name(ours: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(ours, tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / name)
    for way in (tmp_path / name, tmp_path / "link", Path(f"{tmp_path / name}/"), tmp_path / "x" / ".." / name):
        if ".." not in way.parts:
            assert fetch(str(way), tmp_path, tmp_path / "cache") == way
        assert answer(load_model(fetch(str(tmp_path / name), tmp_path, tmp_path)), tiny_batch()).shape == (3, 3)


def test_a_pruned_checkpoint_can_answer_other_labels(tmp_path: Path) -> None:
    model = tiny_model("bert")
    for layer in layers(model):
        layer.keep({"heads": [0, 2], "neurons": range(5)})
    record_sizes(model)
    save(model, toy_tokenizer(), TASK, tmp_path)
    found = load_model(tmp_path, Task("classification", ("spam", "ham")))
    assert [layer.size for layer in layers(found)] == [layer.size for layer in layers(model)]
    assert answer(found, tiny_batch()).shape == (3, 2)


@pytest.mark.parametrize("source", ["no-such-folder/", "./nowhere", "/nowhere/at/all", "../up"])
def test_a_model_that_is_not_there(source: str, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, CheckpointError)) as found:
        open_checkpoint(fetch(source, tmp_path, tmp_path / "cache"))
    assert source.rstrip("/").rpartition("/")[2] in str(found.value)
