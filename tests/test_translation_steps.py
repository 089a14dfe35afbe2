"""Translation from pairs to a student: what is learned, what each step depends on, and what a kill changes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from command_runs import Project, command, copy_steps, steps_in_journal, weights
from test_steps import opened
from toy_translation import MARIAN, TRAINING, write_translation_project

from distill import run, steps, translations
from distill.checkpoint import load_tokenizer
from distill.errors import DataError, RecipeError
from distill.files import read_json
from distill.vocabulary import tokenizer_sum

STEPS = {"teach": "teacher", "label": "signals", "student": "student"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A translation recipe of a few steps; not to be changed, only copied."""
    return write_translation_project(tmp_path_factory.mktemp("project") / "toy", label=WORDS)


WORDS = {"beams": 2, "n_best": 2, "shard_sentences": 16, "word_logits": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Path:
    """What the three steps make of it without incident; not to be changed, only copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    for step in STEPS:
        ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
        assert ended.code == 0, ended.err
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "run.json"))


def test_what_the_steps_leave(finished: Path) -> None:
    assert {name for name in manifest(finished / "teacher")["files"]} >= {
        *("config.json", "generation_config.json", "model.safetensors", "task.json", "tokenizer.json"),
    }
    result = manifest(finished / "teacher")["result"]
    assert result["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert result["vocabulary"] == read_json(finished / "teacher" / "config.json")["vocab_size"]
    task = read_json(finished / "teacher" / "task.json")
    assert task == {
        **{"kind": "translation", "text": "there", "metric": "bleu", "max_length": 16, "target": "back"},
    }
    assert set(manifest(finished / "signals")["files"]) == {"signals.json", "translations.jsonl", "words.safetensors"}
    how = manifest(finished / "signals")["result"]
    assert how["sentences_per_second"] > 0 and how["engine"] == "onnx"
    student = read_json(finished / "student" / "config.json")
    assert (student["encoder_layers"], student["decoder_layers"]) == (2, 1)
    assert not [path.name for path in finished.iterdir() if path.name.startswith(".work-")]
    recipe = (finished / "recipe.yaml").read_text()
    assert "label_names" not in recipe and "target: back" in recipe


FINGERPRINTS: list[tuple[str, dict[str, Any], bool]] = [
    # which step, what changes in the recipe, whether its old result still stands
    ("teach", {"student": {"decoder_layers": 2}}, True),
    ("teach", {"label": {"beams": 3}}, True),
    ("teach", {"vocabulary": {"size": 310}}, False),
    ("teach", {"teacher": {"config": {**MARIAN, "d_model": 16}, "training": TRAINING}}, False),
    ("teach", {"teacher": {"config": MARIAN, "training": {**TRAINING, "tokens_per_batch": 500}}}, False),
    ("teach", {"teacher": {"config": MARIAN, "training": {**TRAINING, "ema_decay": 0.9}}}, False),
    ("label", {"student": {"decoder_layers": 1, "training": {"num_train_epochs": 1}}}, True),
    ("label", {"student": {"decoder_layers": 1, "temperature": 4.0}}, False),
    ("label", {"label": {**WORDS, "beams": 3}}, False),
    ("label", {"label": {**WORDS, "word_logits": 0}}, False),
    ("label", {"label": {**WORDS, "engine": "torch"}}, False),
    ("student", {"student": {"decoder_layers": 2, "training": TRAINING}}, False),
    ("student", {"student": {"decoder_layers": 1, "training": TRAINING, "targets": "both"}}, False),
    ("student", {"bench": {"threads": [1]}}, True),
    ("student", {"data": {"source": "pairs.tsv", "columns": ["there", "back"], "filters": {"max_words": 4}}}, False),
]


@pytest.mark.parametrize(("name", "changes", "stands"), FINGERPRINTS)
def test_rows_11_and_51_what_a_step_depends_on(
    project: Project, finished: Path, tmp_path: Path, name: str, changes: dict[str, Any], stands: bool
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    run_ = opened(project, folder, **changes)
    step, _ = steps.STEPS[name]
    if stands:
        assert run.is_done(step(run_))
        return
    with pytest.raises(RecipeError) as error:
        run.is_done(step(run_))
    assert error.value.problems


def same_result(step: str, folder: Path, finished: Path) -> bool:
    made, expected = (manifest(path / STEPS[step])["files"] for path in (folder, finished))
    return bool(made == expected)


BEFORE: dict[str, tuple[str, ...]] = {"teach": (), "label": ("teacher",), "student": ("teacher", "signals")}


@pytest.mark.parametrize("step", STEPS)
def test_row_1_killed_at_any_operation_it_ends_the_same(
    project: Project, finished: Path, tmp_path: Path, step: str
) -> None:
    counted = copy_steps(finished, tmp_path / "counted", *BEFORE[step])
    whole = command("distill", step, project.recipe, "-o", counted, watched=counted).operations
    folder = copy_steps(finished, tmp_path / "run", *BEFORE[step])
    codes = []
    for share in (0.3, 0.6, 0.9):
        strikes: dict[int | str, int] = {int(share * whole): signal.SIGKILL}
        codes.append(command("distill", step, project.recipe, "-o", folder, watched=folder, strikes=strikes).code)
    assert codes[0] == -signal.SIGKILL
    ended = command("distill", step, project.recipe, "-o", folder, watched=folder)
    assert ended.code == 0, ended.err
    assert same_result(step, folder, finished)
    if step != "label":
        lines = steps_in_journal(folder, step)
        assert len(lines) == len(set(lines))


@pytest.mark.parametrize("optimiser", ["adamw_torch_fused", "muon"])
def test_row_1_killed_while_weights_are_averaged(tmp_path: Path, optimiser: str) -> None:
    training = {
        **TRAINING,
        "num_train_epochs": 6,
        "optim": optimiser,
        "ema_decay": 0.9,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "lr_scheduler_type": "inverse_sqrt",
    }
    project = write_translation_project(
        tmp_path / "toy", teacher={"config": {**MARIAN, "dropout": 0.1}, "training": training}
    )
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert command("distill", "teach", project.recipe, "-o", whole, watched=whole).code == 0
    for number in (2, 3, 3):
        strikes: dict[int | str, int] = {f"raw.safetensors#{number}": signal.SIGKILL}
        ended = command("distill", "teach", project.recipe, "-o", folder, watched=folder, strikes=strikes)
        assert ended.code == -signal.SIGKILL, ended.err
    assert command("distill", "teach", project.recipe, "-o", folder, watched=folder).code == 0
    assert weights(folder / "teacher") == weights(whole / "teacher")
    assert manifest(folder / "teacher")["result"]["best"] == manifest(whole / "teacher")["result"]["best"]


def test_row_1_killed_between_the_last_step_and_the_result(project: Project, finished: Path, tmp_path: Path) -> None:
    """A checkpoint of such a model holds its embeddings once, and no positions."""
    folder = copy_steps(finished, tmp_path / "run", *BEFORE["student"])
    strikes: dict[int | str, int] = {"task.json#1": signal.SIGKILL}
    ended = command("distill", "student", project.recipe, "-o", folder, watched=folder, strikes=strikes)
    assert ended.code == -signal.SIGKILL, ended.err
    ended = command("distill", "student", project.recipe, "-o", folder, watched=folder)
    assert ended.code == 0, ended.err
    assert same_result("student", folder, finished)


def test_row_13_a_label_step_that_is_stopped_keeps_its_shards(project: Project, finished: Path, tmp_path: Path) -> None:
    folder = copy_steps(finished, tmp_path / "run", "teacher")
    strikes: dict[int | str, int] = {"translations.jsonl#5": signal.SIGTERM}
    ended = command("distill", "label", project.recipe, "-o", folder, watched=folder, strikes=strikes)
    assert ended.code == 130
    assert sorted(path.name for path in (folder / ".work-label").glob("shard-*")) == ["shard-00000", "shard-00001"]
    words = ("distill", "label", project.recipe, "-o", folder, "--set", "label.beams=3")
    refused = command(*words, watched=folder)
    assert refused.code == 2 and "label.beams: was 2, is 3" in refused.err
    assert command("distill", "label", project.recipe, "-o", folder, watched=folder).code == 0
    assert same_result("label", folder, finished)


def test_row_50_words_of_another_tokenizer_are_refused_and_whole_translations_are_not(
    project: Project, finished: Path, tmp_path: Path
) -> None:
    other = write_translation_project(tmp_path / "other", vocabulary={"size": 310, "type": "unigram"})
    assert command("distill", "teach", other.recipe, "-o", tmp_path / "o", watched=tmp_path / "o").code == 0
    small = {"model": str(tmp_path / "o" / "teacher"), "training": {**TRAINING, "max_steps": 2}}
    folder = copy_steps(finished, tmp_path / "run", "teacher", "signals")
    with pytest.raises(DataError, match="pieces of its own tokenizer"):
        steps.run_student(opened(project, folder, student=small))
    plain = {**WORDS, "word_logits": 0}
    run_ = opened(project, copy_steps(finished, tmp_path / "plain", "teacher"), student=small, label=plain)
    steps.run_label(run_)
    steps.run_student(run_)
    sums = [
        tokenizer_sum(load_tokenizer(path)) for path in (tmp_path / "o" / "teacher", tmp_path / "plain" / "student")
    ]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("targets", ["references", "both"])
def test_what_a_student_learns_from(project: Project, finished: Path, tmp_path: Path, targets: str) -> None:
    before = ("teacher", "signals") if targets == "both" else ("teacher",)
    folder = copy_steps(finished, tmp_path / "run", *before)
    training = {**TRAINING, "max_steps": 2}
    student = {"config": {**MARIAN, "decoder_layers": 1}, "targets": targets, "training": training}
    run_ = opened(project, folder, student=student)
    made = steps.run_student(run_)
    rows = len(run_.dataset.splits["train"])
    ended = translations.read(finished / "signals").ended
    assert len(ended) == rows + 10, "sentences without translations are asked too"
    assert made["result"]["pairs"] == (rows if targets == "references" else rows + ended.count(True))
    assert tokenizer_sum(load_tokenizer(folder / "student")) == tokenizer_sum(load_tokenizer(folder / "teacher"))


def test_a_teacher_that_goes_on_from_a_checkpoint_and_one_that_is_used_as_it_is(
    project: Project, finished: Path, tmp_path: Path
) -> None:
    source = str(finished / "teacher")
    as_it_is = opened(project, tmp_path / "as-it-is", teacher={"model": source, "training": None})
    steps.run_teach(as_it_is)
    assert weights(tmp_path / "as-it-is" / "teacher") == weights(finished / "teacher")
    goes_on = opened(project, tmp_path / "on", teacher={"model": source, "training": {**TRAINING, "max_steps": 2}})
    assert steps.run_teach(goes_on)["result"]["steps"] == 2
    assert weights(tmp_path / "on" / "teacher") != weights(finished / "teacher")


def test_a_teacher_labels_alike_in_torch_and_as_a_graph(project: Project, finished: Path, tmp_path: Path) -> None:
    run_ = opened(
        project, copy_steps(finished, tmp_path / "run", "teacher"), label={**WORDS, "word_logits": 0, "engine": "torch"}
    )
    assert steps.run_label(run_)["result"]["engine"] == "torch"
    found, expected = (translations.read(folder / "signals") for folder in (run_.folder, finished))
    assert (found.ids, found.texts, found.ended) == (expected.ids, expected.texts, expected.ended)


def test_in_bfloat16(project: Project, tmp_path: Path) -> None:
    training = {**TRAINING, "bf16": True, "max_steps": 2, "label_smoothing_factor": 0.1}
    run_ = opened(project, tmp_path / "run", teacher={"config": MARIAN, "training": training})
    assert steps.run_teach(run_)["result"]["bf16"] is True
    assert steps.run_label(run_)["result"]["examples"] > 100
