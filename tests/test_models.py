"""Students: which layers they get, that the weights are the teacher's, and what cannot be built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import toy_tokenizer, write_tiny_encoder
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_config, tiny_model
from torch import nn

from distill.checkpoint import load_model, save
from distill.errors import CheckpointError, RecipeError
from distill.layer_sizes import record_sizes
from distill.layers import layers, model_config, stack
from distill.models import build_student, chosen_layers, copied, evenly_spaced
from distill.recipe import StudentRecipe
from distill.task import Task

TASK = Task("classification", LABELS, max_length=32)


@pytest.mark.parametrize(
    ("total", "kept", "expected"),
    [
        (12, 6, [0, 2, 4, 6, 8, 11]),
        (12, 4, [0, 3, 7, 11]),
        (12, 3, [0, 5, 11]),
        (12, 2, [0, 11]),
        (12, 1, [0]),
        (6, 3, [0, 2, 5]),
        (6, 4, [0, 1, 3, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (1, 1, [0]),
    ],
)
def test_evenly_spaced(total: int, kept: int, expected: list[int]) -> None:
    assert evenly_spaced(total, kept) == expected


@given(st.integers(1, 60).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total))))
def test_evenly_spaced_layers_are_different_and_reach_both_ends(numbers: tuple[int, int]) -> None:
    total, kept = numbers
    found = evenly_spaced(total, kept)
    assert len(found) == len(set(found)) == kept
    assert found == sorted(found)
    assert found[0] == 0 and (kept == 1 or found[-1] == total - 1)


@pytest.mark.parametrize(
    ("layers", "total", "expected"),
    [
        (None, 6, [0, 2, 5]),
        (None, 1, [0]),
        (None, 5, [0, 4]),
        (4, 4, [0, 1, 2, 3]),
        ((5, 0), 6, [5, 0]),
        ((2,), 6, [2]),
        ((1, 1, 5), 6, [1, 1, 5]),
    ],
)
def test_chosen_layers(layers: int | tuple[int, ...] | None, total: int, expected: list[int]) -> None:
    assert chosen_layers(layers, total) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (7, "7 layers cannot be copied from a teacher of 6"),
        ((0, 6), r"numbers from 0 to 5, found \[0, 6\]"),
        ((-1,), r"from 0 to 5, found \[-1\]"),
        ((), r"found \[\]"),
    ],
)
def test_layers_that_are_not_there(layers: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match="student.layers: .*" + message):
        chosen_layers(layers, 6)


def weights_of(model: nn.Module, layer: int) -> dict[str, torch.Tensor]:
    return stack(model)[1][layer].state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_copied_layers_have_the_teachers_weights(kind: str) -> None:
    teacher = tiny_model(kind)
    student = copied(teacher, StudentRecipe(layers=(3, 1)))
    assert model_config(student).num_hidden_layers == len(stack(student)[1]) == 2
    for new, old in ((0, 3), (1, 1)):
        for name, value in weights_of(student, new).items():
            assert torch.equal(value, weights_of(teacher, old)[name]), name
    outside = {name: value for name, value in teacher.state_dict().items() if stack(teacher)[0] not in name}
    assert outside and all(torch.equal(student.state_dict()[name], value) for name, value in outside.items())


@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_copied_answer_like_the_teacher(kind: str) -> None:
    teacher, batch = tiny_model(kind), tiny_batch()
    student = copied(teacher, StudentRecipe(layers=4)).eval()
    assert torch.equal(answer(student, batch), answer(teacher, batch))


def test_the_student_shares_nothing_with_the_teacher() -> None:
    teacher = tiny_model("bert")
    before = answer(teacher, tiny_batch())
    with torch.no_grad():
        for value in copied(teacher, StudentRecipe(layers=2)).parameters():
            value.zero_()
    assert torch.equal(answer(teacher, tiny_batch()), before)
    assert model_config(teacher).num_hidden_layers == 4


@pytest.mark.parametrize("kind", KINDS)
def test_narrower_students_get_the_leading_part(kind: str) -> None:
    teacher = tiny_model(kind)
    student = copied(teacher, StudentRecipe(layers=2, hidden_size=8, intermediate_size=20))
    config = model_config(student)
    assert (config.hidden_size, config.num_attention_heads, len(stack(student)[1])) == (8, 2, 2)
    for layer, source in zip(layers(student), (layers(teacher)[0], layers(teacher)[3]), strict=True):
        assert (layer.size.heads, layer.size.neurons, layer.heads.width) == (2, 20, 4)
        assert torch.equal(layer.linear("query").weight, source.linear("query").weight[:8, :8])
        assert torch.equal(layer.linear("up").weight, source.linear("up").weight[:20, :8])
        assert torch.equal(layer.linear("down").bias, source.linear("down").bias[:8])
    assert answer(student.eval(), tiny_batch()).shape == (3, 3)


def test_an_electra_whose_embeddings_are_as_wide_as_its_layers() -> None:
    config = tiny_config("electra")
    config.embedding_size = 16
    teacher = type(tiny_model("electra"))(config).eval()
    student = copied(teacher, StudentRecipe(hidden_size=8)).eval()
    assert answer(student, tiny_batch()).shape == (3, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_narrower_students_come_back_from_disk(kind: str, tmp_path: Path) -> None:
    student = copied(tiny_model(kind), StudentRecipe(hidden_size=12, intermediate_size=7)).eval()
    save(student, toy_tokenizer(), TASK, tmp_path)
    assert torch.equal(answer(load_model(tmp_path), tiny_batch()), answer(student, tiny_batch()))


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (StudentRecipe(hidden_size=10), "student.hidden_size: expected a multiple of the head size 4"),
        (StudentRecipe(hidden_size=20), "student.hidden_size: 20 is more than the teacher's 16"),
        (StudentRecipe(intermediate_size=25), "student.intermediate_size: 25 is more than the teacher's 24"),
    ],
)
def test_widths_that_cannot_be(kind: str, recipe: StudentRecipe, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        copied(tiny_model(kind), recipe)


def test_from_a_smaller_checkpoint(tmp_path: Path) -> None:
    start = write_tiny_encoder(tmp_path / "smaller", layers=1)
    student = build_student(StudentRecipe(model="smaller"), tiny_model("bert"), TASK, start, seed=3)
    again = build_student(StudentRecipe(model="smaller"), tiny_model("bert"), TASK, start, seed=3)
    assert model_config(student).num_hidden_layers == 1
    assert tuple(model_config(student).id2label.values()) == LABELS
    assert torch.equal(answer(student, tiny_batch()), answer(again, tiny_batch()))
    other = build_student(StudentRecipe(model="smaller"), tiny_model("bert"), TASK, start, seed=4)
    assert not torch.equal(answer(student, tiny_batch()), answer(other, tiny_batch()))


def write_config(folder: Path, kind: str) -> Path:
    tiny_config(kind, layers=1, labels=("x", "y")).save_pretrained(folder)
    return folder / "config.json"


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_config(kind: str, tmp_path: Path) -> None:
    path = write_config(tmp_path, kind)
    student = build_student(StudentRecipe(config="config.json"), tiny_model("bert"), TASK, path, seed=3)
    again = build_student(StudentRecipe(config="config.json"), tiny_model("bert"), TASK, path, seed=3)
    config = model_config(student)
    assert (config.model_type, config.num_hidden_layers, config.num_labels) == (kind, 1, 3)
    assert tuple(config.id2label.values()) == LABELS
    assert torch.equal(answer(student.eval(), tiny_batch()), answer(again.eval(), tiny_batch()))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model_type": "unheard-of"}', '{"model_type": "bert", "vocab_size": "x"}']
)
def test_a_config_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="config"):
        build_student(StudentRecipe(config="config.json"), tiny_model("bert"), TASK, path, seed=3)


def test_a_config_that_asks_for_code(tmp_path: Path) -> None:
    path = write_config(tmp_path, "bert")
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        build_student(StudentRecipe(config="config.json"), tiny_model("bert"), TASK, path, seed=3)


def test_a_pruned_teacher_hands_on_its_layers_sizes(tmp_path: Path) -> None:
    teacher = tiny_model("bert")
    for number, layer in enumerate(layers(teacher)):
        layer.keep({"heads": range(number + 1 if number < 3 else 2), "neurons": range(5 + number)})
    record_sizes(teacher)
    student = copied(teacher, StudentRecipe(layers=(3, 2)))
    assert [(layer.size.heads, layer.size.neurons) for layer in layers(student)] == [(2, 8), (3, 7)]
    assert torch.equal(layers(student)[0].linear("up").weight, layers(teacher)[3].linear("up").weight)
    save(student.eval(), toy_tokenizer(), TASK, tmp_path)
    assert torch.equal(answer(load_model(tmp_path), tiny_batch()), answer(student, tiny_batch()))
    with pytest.raises(RecipeError, match="the teacher was pruned"):
        copied(teacher, StudentRecipe(hidden_size=8))


def test_all_widths_that_do_not_fit_at_once() -> None:
    with pytest.raises(RecipeError) as found:
        copied(tiny_model("bert"), StudentRecipe(hidden_size=18, intermediate_size=25))
    assert len(found.value.problems) == 3
