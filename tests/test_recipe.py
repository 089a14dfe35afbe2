"""Recipes: strict YAML, every problem at once with the nearest key, `--set`, and what the defaults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distill.errors import RecipeError
from distill.recipe import Recipe, load, parse
from distill.recipe_file import parse_yaml, with_overrides

LEAST = "name: toy\ndata: {source: toy.csv}\nteacher: {model: encoder}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as found:
        load(write(folder, text), overrides)
    assert found.value.exit_code == 2
    return list(found.value.problems) or [found.value.message]


def test_the_least_recipe(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, LEAST))
    assert (recipe.name, recipe.seed, recipe.format) == ("toy", 42, 1)
    assert (recipe.student.temperature, recipe.student.alpha, recipe.student.layers) == (2.0, 0.5, None)
    assert recipe.prune is None
    assert recipe.quantize is not None and recipe.quantize.methods is None


def test_what_is_written_back_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, LEAST + "prune: {heads: 0.5}\nquantize: null\nstudent: {layers: [0, 3]}\n"))
    assert parse(recipe.model_dump(mode="json"), "again") == recipe


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, LEAST))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3


def test_all_problems_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """
name: toy
sead: 3
data: {sorce: toy.csv}
teacher: {model: encoder, training: {num_train_epoch: 3, learning_rate: fast}}
student: {temprature: 4, alpha: 1.5}
prune: {head: 0.5}
quantize: {methods: [dinamic]}
bench: {threads: [0]}
"""
    found = problems_of(tmp_path, text)
    for wanted in (
        "sead: unknown key; did you mean seed?",
        "data.sorce: unknown key; did you mean source?",
        "teacher.training.num_train_epoch: unknown key; did you mean num_train_epochs?",
        "teacher.training.learning_rate: Input should be a valid number",
        "student.temprature: unknown key; did you mean temperature?",
        "student.alpha: Input should be less than or equal to 1 (found 1.5)",
        "prune.head: unknown key; did you mean heads?",
        "quantize.methods.0: Input should be 'dynamic', 'static', 'int8-weights', 'int4-weights', 'inc-static' or "
        "'fp16' (found 'dinamic')",
        "bench.threads.0",
    ):
        assert any(problem.startswith(wanted) for problem in found), wanted


def test_a_key_like_no_other_gets_the_list(tmp_path: Path) -> None:
    found = problems_of(tmp_path, LEAST + "export: {zzz: 1}\n")
    assert found == ["export.zzz: unknown key; expected one of opset, atol"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LEAST + "name: again\n", "line 4, column 1: key 'name' stands twice"),
        (LEAST + "student:\n  alpha: 1\n  alpha: 0\n", "line 6, column 3: key 'alpha' stands twice"),
        (LEAST + "student: {alpha: 1, alpha: 0}\n", "key 'alpha' stands twice"),
        (LEAST + "student:\n\talpha: 1\n", "line 5, column 1: found character '\\t' that cannot start any token"),
        (
            LEAST + "seed: !!python/object/apply:os.system ['true']\n",
            "line 4, column 7: could not determine a constructor",
        ),
        (LEAST + "seed: !!python/name:os.system\n", "could not determine a constructor"),
        (LEAST + "seed: [1\n", "line 5, column 1:"),
        (LEAST + "--- \nname: second\n", "line 4, column 1: but found another document"),
        (LEAST + "seed: *nowhere\n", "found undefined alias"),
        (LEAST + "? [a, b]\n: 1\n", "line 4, column 3: expected a word as key"),
        (LEAST + "? {a: b}\n: 1\n", "line 4, column 3: expected a word as key"),
        ("name: \x01\n", "special characters are not allowed"),
        ("a: &a [*a]\n", "a"),
    ],
)
def test_what_is_not_a_recipe_says_where(tmp_path: Path, text: str, wanted: str) -> None:
    assert any(wanted in problem for problem in problems_of(tmp_path, text))


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b\n", "3", "null"])
def test_yaml_that_is_not_a_mapping(tmp_path: Path, text: str) -> None:
    assert "recipe" in problems_of(tmp_path, text)[0]


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*: No such file"):
        load(tmp_path / "nothing.yaml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*: Is a directory"):
        load(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(LEAST.encode() + "# Größe\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=rf"is not UTF-8 \(byte {len(LEAST) + 4}\)"):
        load(path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert load(path).name == "toy"


def test_nested_without_end(tmp_path: Path) -> None:
    assert "nested too deeply" in problems_of(tmp_path, "a: " + "[" * 5000)[0]


def test_aliases_that_swell(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert problems_of(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("NO", "NO"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("5.0e-5", 5e-5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("12", 12),
        ("-3", -3),
        ("007", "007"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("<<", "<<"),
        ("=", "="),
        ("1e", "1e"),
        ("e5", "e5"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


def labels(folder: Path, text: str) -> Any:
    return load(write(folder, f"{LEAST}task: {{labels: {text}}}\n")).task.labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[no, yes]", ("no", "yes")),
        ("[off, on, n, y]", ("off", "on", "n", "y")),
        ("[0, 1]", ("0", "1")),
        ("[007, 2024-01-01]", ("007", "2024-01-01")),
        ("['true', 'null']", ("true", "null")),
    ],
)
def test_labels_are_text(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    assert labels(tmp_path, text) == expected


@pytest.mark.parametrize("text", ["[true, false]", "[null, a]", "[1.5, 2]", "[[a], b]", "a", "7"])
def test_labels_that_are_not(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, f"{LEAST}task: {{labels: {text}}}\n")[0].startswith("task.labels")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("task: {labels: [a, a]}", "task.labels"),
        ("task: {labels: [a]}", "task.labels"),
        ("task: {labels: []}", "task.labels"),
        ("name: ../up", "name"),
        ("name: ''", "name"),
        ("name: 3", "name"),
        ("seed: -1", "seed"),
        ("seed: 1.5", "seed"),
        ("format: 2", "format"),
        ("task: {max_length: 2}", "task.max_length"),
        ("task: {kind: poetry}", "task.kind"),
        ("teacher: {model: x, training: {learning_rate: .inf}}", "teacher.training.learning_rate"),
        ("teacher: {model: x, training: {learning_rate: 1e999}}", "teacher.training.learning_rate"),
        ("teacher: {model: x, training: {learning_rate: 0}}", "teacher.training.learning_rate"),
        ("teacher: {model: x, training: {eval_strategy: steps}}", "eval_steps"),
        ("teacher: {model: x, training: {max_steps: 0}}", "teacher.training.max_steps"),
        ("teacher: {model: x, training: {max_steps: -2}}", "teacher.training.max_steps"),
        ("teacher: {}", "teacher.model"),
        ("data: {}", "give either `source`"),
        ("data: {source: a, train: b}", "give either `source`"),
        ("data: {source: a, test: b}", "go with `train`"),
        ("student: {layers: 0}", "student.layers"),
        ("student: {layers: []}", "student.layers"),
        ("student: {layers: [-1]}", "student.layers"),
        ("student: {model: a, layers: 2}", "give one start"),
        ("student: {model: a, config: b}", "give one start"),
        ("prune: {heads: 1.0}", "prune.heads"),
        ("prune: {heads: -0.1}", "prune.heads"),
        ("prune: {neurons: 1.5}", "prune.neurons"),
        ("prune: {heads: 0, neurons: 0}", "nothing"),
        ("prune: {heads: 0, neurons: 0, width: 0}", "`width` a share"),
        ("prune: {width: 1.0}", "prune.width"),
        ("prune: {width: -0.1}", "prune.width"),
        ("factorise: {energy: 1.0}", "factorise.energy"),
        ("factorise: {energy: 0}", "factorise.energy"),
        ("factorise: {parameters: 1.2}", "factorise.parameters"),
        ("factorise: {energy: 2, parameters: 0, weighting: rows}", "factorise.weighting"),
        ("factorise: {energy: 0.9, parameters: 0.5}", "give `energy` or `parameters`, not both"),
        ("factorise: {rank: 64}", "factorise.rank: unknown key"),
        ("factorise: {targets: both}", "these keys do not go with task.kind classification: factorise.targets"),
        ("export: {opset: 9}", "export.opset"),
        ("quantize: {methods: []}", "quantize.methods"),
        ("quantize: {methods: [dynamic, dynamic]}", "quantize.methods"),
        ("quantize: {max_drop: 1}", "max_drop and margin are shares here"),
        ("bench: {batch_sizes: []}", "bench.batch_sizes"),
        ("task: {kind: translation}\nquantize: {methods: [static]}", "translation has no static int8"),
        ("task: {kind: translation}\nquantize: {device: tensorrt}", "nor a form for tensorrt"),
        (
            "quantize: {device: cuda, methods: [dynamic, fp16]}",
            "methods dynamic do not go with device cuda: onnxruntime",
        ),
        ("quantize: {device: tensorrt, methods: [fp16]}", "TensorRT reads int8 with fixed ranges alone"),
        ("quantize: {methods: [fp16]}", "processors compute float16 more slowly"),
        ("task: {kind: translation}\nquantize: {device: cuda, shortlist: 8}", "shortlist goes with device cpu"),
        ("task: {kind: translation}\nquantize: {methods: [int8-weights], shortlist: 8}", "and method dynamic alone"),
        ("task: {kind: translation}\nprune: {layers: 2}", "not go with task.kind translation: prune.layers"),
        ("prune: {encoder_layers: 2}", "not go with task.kind classification: prune.encoder_layers"),
        ("prune: {speedup: 2, parameters: 0.5}", "one target, found speedup, parameters"),
        ("prune: {speedup: 2, heads: 0.5}", "one target, found heads, speedup"),
        ("prune: {speedup: 1}", "prune.speedup"),
        ("prune: {parameters: 0}", "prune.parameters"),
        ("prune: {latency_ms: 0}", "prune.latency_ms"),
        ("prune: {rounds: 0}", "prune.rounds"),
        ("prune: {importance: luck}", "prune.importance"),
        ("bench: {beams: [4]}", "these keys do not go with task.kind classification: bench.beams"),
        ("bench: {min_rounds: 9, max_rounds: 8}", "min_rounds"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, text: str, wanted: str) -> None:
    key = text.partition(":")[0]
    others = [line for line in LEAST.splitlines() if not line.startswith(f"{key}:")]
    found = problems_of(tmp_path, "\n".join([*others, text]))
    assert len(found) <= 3 and any(wanted in problem for problem in found), found


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("student.layers=2", ("student", "layers"), 2),
        ("student.layers=[0, 2]", ("student", "layers"), (0, 2)),
        ("student.training.learning_rate=1e-3", ("student", "training", "learning_rate"), 1e-3),
        ("prune.heads=0.5", ("prune", "heads"), 0.5),
        ("quantize=null", ("quantize",), None),
        ("quantize=", ("quantize",), None),
        ("task.labels=[no, yes]", ("task", "labels"), ("no", "yes")),
        ("data.source=a=b.csv", ("data", "source"), "a=b.csv"),
        ("name=other", ("name",), "other"),
    ],
)
def test_set(tmp_path: Path, override: str, path: tuple[str, ...], value: object) -> None:
    found: Any = load(write(tmp_path, LEAST), (override,))
    for part in path:
        found = getattr(found, part)
    assert found == value


def test_the_last_set_wins_and_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST + "student: {alpha: 0.25, temperature: 4}\n")
    recipe = load(path, ("student.alpha=0.5", "student.alpha=0.75"))
    assert (recipe.student.alpha, recipe.student.temperature) == (0.75, 4)


def test_set_does_not_touch_what_it_is_given() -> None:
    value = {"a": {"b": 1}}
    assert with_overrides(value, ("a.b=2", "c.d=3")) == {"a": {"b": 2}, "c": {"d": 3}}
    assert value == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("seed", "--set seed: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("student.layer=2", "student.layer: unknown key; did you mean layers?"),
        ("name.deep=2", "is not a section"),
        ("seed=[1", "the value is not YAML"),
        ("seed=" + "[" * 5000, "nested too deeply"),
        ("seed=!!python/name:os.system", "the value is not YAML"),
        ("student..layers=2", "student"),
    ],
)
def test_sets_that_do_not_fit(tmp_path: Path, override: str, wanted: str) -> None:
    path = write(tmp_path, LEAST)
    with pytest.raises(RecipeError) as found:
        load(path, (override,))
    assert wanted in str(found.value)


def test_every_field_is_described() -> None:
    def bare(model: Any, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = [
                x for x in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(x, "model_fields")
            ]
            found += [line for section in inner for line in bare(section, f"{path}{name}.")]
            found += [] if field.description or inner else [path + name]
        return found

    assert bare(Recipe, "") == []


def test_a_students_training_keeps_its_own_defaults_when_one_option_is_given(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, LEAST + "student: {training: {learning_rate: 1e-3}}\n"))
    assert (recipe.student.training.num_train_epochs, recipe.student.training.learning_rate) == (5.0, 1e-3)
