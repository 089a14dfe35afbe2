"""Both commands as people meet them without the training extra: help, mistakes, and answering with a bundle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click
import pytest
from command_line import RUNTIME, TRAINING, command, run
from onnx_bytes import GOLDEN, copy_golden

from compress.cli import compress
from distill.cli import distill

pytestmark = pytest.mark.runtime

EXPECTED = json.loads((GOLDEN.parent / "golden-expected.json").read_text(encoding="utf-8"))
GROUPS = {"distill": distill, "compress": compress}
COMMANDS = [(name, sub) for name, group in GROUPS.items() for sub in group.list_commands(click.Context(group))]
RECIPE_COMMANDS = [
    ("distill", "teach", "recipe.yaml"),
    ("distill", "label", "recipe.yaml"),
    ("distill", "student", "recipe.yaml"),
    ("distill", "evaluate", "model", "recipe.yaml"),
    ("compress", "run", "recipe.yaml"),
    ("compress", "run", "recipe.yaml", "--dry-run"),
    ("compress", "prune", "recipe.yaml"),
    ("compress", "export", "--onnx", "recipe.yaml"),
    ("compress", "quantize", "recipe.yaml"),
    ("compress", "bench", "recipe.yaml"),
    ("compress", "init", "reviews.csv", "-o", "new.yaml"),
]
LABELS = ("negative", "neutral", "positive")


def expected_lines(texts: list[str], rows: list[list[float]]) -> list[tuple[str, float, str]]:
    return [(LABELS[row.index(max(row))], max(row), text) for text, row in zip(texts, rows, strict=True)]


def read_lines(output: str) -> list[tuple[str, float, str]]:
    """`predict`'s lines as label, score and text."""
    found = [line.split("\t", 2) for line in output.splitlines()]
    return [(label, pytest.approx(float(score), abs=2e-4), text) for label, score, text in found]


# --- help ---------------------------------------------------------------------------------------


def test_these_are_the_commands() -> None:
    assert {sub for name, sub in COMMANDS if name == "distill"} == {"teach", "label", "student", "evaluate"}
    wanted = {"init", "run", "prune", "vocabulary", "export", "quantize", "bench", "layers", "verify", "predict"}
    assert {sub for name, sub in COMMANDS if name == "compress"} == wanted


@pytest.mark.parametrize("words", [("distill",), ("compress",), *COMMANDS], ids=" ".join)
def test_help_needs_nothing_but_click(words: tuple[str, ...]) -> None:
    done = run(words[0], *words[1:], "--help", missing=(*TRAINING, *RUNTIME))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {' '.join(words)} " in done.stdout
    assert "\x1b" not in done.stdout and "\b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_says_what_it_does(words: tuple[str, str]) -> None:
    group = GROUPS[words[0]]
    found = group.get_command(click.Context(group), words[1])
    assert found is not None and found.help
    assert [option.name for option in found.params if isinstance(option, click.Option) and not option.help] in (
        [],
        ["split"],
    )


@pytest.mark.parametrize("program", ["distill", "compress"])
def test_version(program: str) -> None:
    done = run(program, "--version", missing=(*TRAINING, *RUNTIME))
    assert done.returncode == 0 and done.stdout.startswith(f"{program}, version 0.")


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("distill",), "Usage: distill"),
        (("compress",), "Usage: compress"),
        (("compress", "run"), "Missing argument 'RECIPE'"),
        (("distill", "teach"), "Missing argument 'RECIPE'"),
        (("distill", "evaluate", "model"), "Missing argument 'RECIPE'"),
        (("compress", "bench"), "Missing argument 'SOURCES...'"),
        (("compress", "predict"), "Missing argument 'BUNDLE'"),
        (("compress", "run", "recipe.yaml", "--dryrun"), "No such option '--dryrun'. Did you mean '--dry-run'?"),
        (("distill", "student", "recipe.yaml", "-x"), "No such option '-x'"),
        (("compress", "squeeze"), "No such command 'squeeze'"),
        (("compress", "predict", "bundle", "--threads", "0"), "0 is not in the range x>=1"),
        (("compress", "export", "x", "--quantize", "int4"), "'int4' is not 'int8'"),
        (("distill", "evaluate", "m", "r", "--split", "train"), "'train' is not one of 'validation', 'test'"),
        (("compress", "run", "a.yaml", "b.yaml"), "unexpected extra argument"),
        (("compress", "run", "a.yaml", "--set"), "Option '--set' requires an argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors(words: tuple[str, ...], problem: str) -> None:
    done = run(words[0], *words[1:], missing=(*TRAINING, *RUNTIME))
    assert done.returncode == 2
    assert problem.replace("'", "") in done.stderr.replace("'", "")
    assert "Traceback" not in done.stderr
    if len(words) > 1 and "requires" not in problem:  # click gives no hint with that one
        assert "Try " in done.stderr and "-h" in done.stderr


@pytest.mark.parametrize("words", RECIPE_COMMANDS, ids=" ".join)
def test_without_the_training_extra_the_extra_is_named(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(words[0], *words[1:], missing=TRAINING, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "pip install 'potstill[train,cpu]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("predict", GOLDEN, "fine"), ("verify", GOLDEN)], ids=["predict", "verify"])
def test_without_onnxruntime_its_extra_is_named(words: tuple[object, ...]) -> None:
    done = run("compress", *words, missing=(*TRAINING, "onnxruntime"))
    assert done.returncode == 2
    assert "pip install 'potstill[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr


# --- predict ------------------------------------------------------------------------------------


def test_predict_texts_given_as_arguments() -> None:
    texts = EXPECTED["texts"][2:7]
    done = run("compress", "predict", GOLDEN, *texts, "--threads", 1, missing=TRAINING)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_lines(done.stdout) == expected_lines(texts, EXPECTED["fp32"][2:7])


def test_predict_lines_of_stdin() -> None:
    texts = ["", *EXPECTED["texts"][2:7]]
    rows = [EXPECTED["fp32"][0], *EXPECTED["fp32"][2:7]]
    done = run("compress", "predict", GOLDEN, missing=TRAINING, stdin="\r\n".join(texts))
    assert (done.returncode, done.stderr) == (0, "")
    assert read_lines(done.stdout) == expected_lines(texts, rows)


def test_predict_json() -> None:
    done = run("compress", "predict", GOLDEN, "--json", "a gorgeous film", missing=TRAINING)
    found = json.loads(done.stdout)
    assert found == {"label": "neutral", "score": pytest.approx(0.51219, abs=1e-4), "truncated": False}


def test_predict_answers_an_empty_stdin_with_nothing() -> None:
    done = run("compress", "predict", GOLDEN, missing=TRAINING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_predict_bytes_that_are_not_utf8() -> None:
    done = run("compress", "predict", GOLDEN, missing=TRAINING, stdin=b"caf\xe9\n")
    assert done.returncode == 0 and done.stdout.endswith("\tcaf\N{REPLACEMENT CHARACTER}\n")


@pytest.mark.parametrize("name", ["C", "POSIX", "C.UTF-8"])
def test_predict_in_a_plain_locale(name: str) -> None:
    done = run("compress", "predict", GOLDEN, "café 你好", missing=TRAINING, environment={"LC_ALL": name, "LANG": name})
    assert (done.returncode, done.stderr) == (0, "")
    assert "café 你好" in done.stdout


def test_predict_where_stdout_cannot_write_the_text() -> None:
    done = run("compress", "predict", GOLDEN, "ok 你好", missing=TRAINING, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "ok " in done.stdout


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("a gorgeous film\n" * 20_000)
    with lines.open("rb") as source:
        process = subprocess.Popen(
            command("compress", "predict", GOLDEN, missing=TRAINING),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"neutral\t")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 0


def test_help_to_a_reader_that_has_left() -> None:
    process = subprocess.Popen(command("compress", "--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("predict", "nowhere", "text"), 4, "nowhere"),
        (("verify", "nowhere"), 4, "nowhere"),
        (("predict", GOLDEN, "text", "--provider", "abacus"), 2, "abacus"),
    ],
)
def test_bundles_and_providers_that_are_not_there(words: tuple[object, ...], code: int, problem: str) -> None:
    done = run("compress", *words, missing=TRAINING)
    assert done.returncode == code
    assert done.stderr.startswith("error: ") and problem in done.stderr and "Traceback" not in done.stderr


# --- verify -------------------------------------------------------------------------------------


def test_verify_a_whole_bundle() -> None:
    done = run("compress", "verify", GOLDEN, missing=TRAINING)
    assert (done.returncode, done.stderr) == (0, "")
    assert "whole and answers" in done.stdout and "bundle id " in done.stdout


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("verb", ["verify", "predict"])
def test_one_flipped_bit(tmp_path: Path, name: str, verb: str) -> None:
    folder = copy_golden(tmp_path)
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = run("compress", verb, folder, *(["text"] if verb == "predict" else []), missing=TRAINING)
    assert done.returncode == 4
    assert name in done.stderr and "sha256" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
