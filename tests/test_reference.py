"""The checked-in recipe reference says what the recipe's model says."""

from __future__ import annotations

import re
from pathlib import Path

from distill.recipe import Recipe
from distill.reference import reference

ROOT = Path(__file__).parent.parent


def test_the_checked_in_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m distill.reference > docs/recipe.md"


def test_every_section_has_a_table_or_says_where_it_is() -> None:
    titles = re.findall(r"^## `(.+)`$", reference(), re.MULTILINE)
    assert titles == [
        *("data", "data.split", "data.filters", "task", "teacher", "teacher.training", "vocabulary", "label"),
        *("student", "student.training"),
        *("prune", "prune.training", "factorise", "factorise.training", "export", "quantize", "bench"),
    ]
    assert all(f"| `{name}` |" in reference() for name in Recipe.model_fields)


def test_what_a_student_does_otherwise_than_its_teacher_is_said() -> None:
    wanted = "## `student.training`\n\nThe keys of `teacher.training`; `num_train_epochs` is `5.0` if left out.\n"
    assert wanted in reference()


def test_keys_of_one_kind_of_task_say_so() -> None:
    lines = reference().splitlines()
    (pair,) = [line for line in lines if line.startswith("| `pair` |")]
    (tokens,) = [line for line in lines if line.startswith("| `tokens_per_batch` |")]
    (label,) = [line for line in lines if line.startswith("| `label` | section")]
    assert pair.endswith("(classification) |")
    assert tokens.endswith("(translation) |") and label.endswith("(translation) |")


def test_tables_are_whole() -> None:
    for line in reference().splitlines():
        assert not line.startswith("|") or line.count("|") == 5
