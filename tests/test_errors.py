"""One tree of errors: drawn in the docstring, with exit codes, and messages that show every problem."""

from __future__ import annotations

import pickle
import re

import pytest

from distill import errors
from distill.errors import PotstillError, RecipeError

pytestmark = pytest.mark.runtime

DRAWN = re.findall(r"^\s*([├└]?)[─ ]*(\w+Error) +(\d+) {2,}\S", errors.__doc__ or "", re.MULTILINE)
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    assert [(name, int(code)) for _, name, code in DRAWN] == [(kind.__name__, kind.exit_code) for kind in CLASSES]


def test_all_grow_from_one_root() -> None:
    assert [branch for branch, _, _ in DRAWN] == ["", *"├" * (len(DRAWN) - 2), "└"]
    assert all(kind.__bases__ == (PotstillError,) for kind in CLASSES if kind is not PotstillError)
    assert PotstillError.__bases__ == (Exception,)


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        ([], "two things are wrong"),
        (["one", "two"], "two things are wrong\n  - one\n  - two"),
        (["x"] * 10, "two things are wrong" + "\n  - x" * 10),
        (["x"] * 12, "two things are wrong" + "\n  - x" * 10 + "\n  (and 2 more)"),
    ],
)
def test_messages(problems: list[str], text: str) -> None:
    error = RecipeError("two things are wrong", problems)
    assert str(error) == text
    assert (error.message, error.problems) == ("two things are wrong", tuple(problems))


def test_errors_come_back_from_other_processes() -> None:
    copy = pickle.loads(pickle.dumps(RecipeError("wrong", ["a"])))
    assert (type(copy), copy.message, copy.problems) == (RecipeError, "wrong", ("a",))
