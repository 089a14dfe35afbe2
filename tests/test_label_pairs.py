"""What of the teacher's translations is kept, in shards that are asked once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_seq2seq import TASK, tiny
from toy_translation import reversals
from transformers import PreTrainedTokenizerBase

from distill.bleu import sentence_scorer
from distill.data import Dataset, Split
from distill.label_pairs import Teacher, choose, label_pairs, questions
from distill.recipe import LabelRecipe, VocabularyRecipe
from distill.token_batches import encode_pairs
from distill.translate import Hypothesis, Search, translate
from distill.translations import Translations
from distill.vocabulary import tokenizer_sum, train_vocabulary


def hypotheses(*texts: str) -> list[Hypothesis]:
    return [Hypothesis(text.rstrip("…"), not text.endswith("…")) for text in texts]


CHOICES: list[tuple[list[Hypothesis], str | None, str, str]] = [
    # what the teacher says (… never ended), the reference, what is kept, and what comes out
    (hypotheses("a cat", "the cat sat", "the cat"), "the cat sat", "chrf", "the cat sat"),
    (hypotheses("a cat", "the cat sat", "the cat"), "the cat sat", "bleu", "the cat sat"),
    (hypotheses("a cat", "the cat sat", "the cat"), "the cat sat", "first", "a cat"),
    (hypotheses("a cat", "the cat sat", "the cat"), None, "chrf", "a cat"),
    (hypotheses("the cat sat…", "a cat"), "the cat sat", "chrf", "a cat"),
    (hypotheses("the the…", "a cat"), None, "chrf", "a cat"),
    (hypotheses("the the…", "a cat…"), "a cat", "chrf", "a cat"),
    (hypotheses("same", "same"), "same", "bleu", "same"),
]


@pytest.mark.parametrize(("found", "reference", "keep", "expected"), CHOICES)
def test_which_hypothesis_is_kept(found: list[Hypothesis], reference: str | None, keep: str, expected: str) -> None:
    scorer = None if keep == "first" else sentence_scorer(keep)
    assert choose(found, reference, scorer).text == expected


def dataset(count: int = 20, mono: int = 5) -> Dataset:
    pairs = reversals(count)
    pairs.append((pairs[0][0], "another translation"))
    train = Split(tuple(a for a, _ in pairs), None, (), tuple(b for _, b in pairs))
    unlabelled = Split(tuple(a for a, _ in reversals(count + mono)[count:]), None, ())
    return Dataset(TASK, {"train": train, "unlabelled": unlabelled}, "", {}, ())


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    texts = [side for pair in reversals(50) for side in pair]
    tokenizer: PreTrainedTokenizerBase = train_vocabulary(texts, VocabularyRecipe(size=300))
    return Teacher(tiny("marian", tokenizer, 5), tokenizer, TASK, "weights")


RECIPE = LabelRecipe(beams=2, n_best=2, shard_sentences=8, word_logits=4)


def asked(teacher: Teacher, work: Path, recipe: LabelRecipe = RECIPE) -> tuple[Translations, Any]:
    work.mkdir(exist_ok=True)
    return label_pairs(teacher, dataset(), recipe, 2.0, work)


def test_every_example_once_with_the_best_of_what_the_teacher_says(teacher: Teacher, tmp_path: Path) -> None:
    found, how = asked(teacher, tmp_path / "work")
    wanted = questions(dataset())
    assert sorted(found.ids) == sorted(question.id for question in wanted)
    assert how["examples"] == 26 and how["sentences_per_second"] > 0
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [f"shard-{i:05d}" for i in range(4)]
    assert (found.teacher, found.tokenizer) == ("weights", tokenizer_sum(teacher.tokenizer))
    score = sentence_scorer("chrf")
    for question in wanted:
        place = found.ids.index(question.id)
        best = translate(teacher.model, teacher.tokenizer, [question.text], TASK, Search(2, 2))[0]
        expected = choose(best, question.reference, score)
        assert (found.texts[place], found.ended[place]) == (expected.text, expected.ended)


def test_words_are_the_teachers_at_the_words_of_the_translation(teacher: Teacher, tmp_path: Path) -> None:
    found, _ = asked(teacher, tmp_path / "work")
    assert found.words is not None
    texts = {question.id: question.text for question in questions(dataset())}
    for place in (0, 7, 25):
        row = encode_pairs(teacher.tokenizer, [texts[found.ids[place]]], [found.texts[place]], TASK)[0]
        start = torch.tensor([[0, *row["labels"][:-1]]])
        with torch.no_grad():
            logits = teacher.model(input_ids=torch.tensor([row["input_ids"]]), decoder_input_ids=start).logits[0]
        logs = (logits / 2.0).log_softmax(-1)
        pieces, stored = found.words.of(place)
        assert pieces.shape == (len(row["labels"]), 4)
        assert torch.from_numpy(stored[:, :4]).allclose(logs.gather(-1, torch.from_numpy(pieces)), atol=0.05)
        others = logs.exp().sum(-1) - logs.gather(-1, torch.from_numpy(pieces)).exp().sum(-1)
        assert torch.from_numpy(stored[:, 4]).exp().allclose(others, atol=0.01)


def test_what_is_there_is_not_asked_again(teacher: Teacher, tmp_path: Path) -> None:
    whole, _ = asked(teacher, tmp_path / "whole")
    work = shutil.copytree(tmp_path / "whole", tmp_path / "work")
    shutil.rmtree(work / "shard-00002")
    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    again, how = asked(teacher, work)
    assert again.ids == whole.ids and again.texts == whole.texts
    assert {path.name for path in work.iterdir() if before.get(path.name) != path.stat().st_mtime_ns} == {"shard-00002"}
    assert how["sentences_per_second"] > 0
    assert asked(teacher, work)[1]["sentences_per_second"] is None


def test_the_size_of_shards_changes_nothing_but_the_order(teacher: Teacher, tmp_path: Path) -> None:
    few, _ = asked(teacher, tmp_path / "few")
    many, _ = asked(teacher, tmp_path / "many", RECIPE.model_copy(update={"shard_sentences": 3}))
    assert dict(zip(few.ids, few.texts, strict=True)) == dict(zip(many.ids, many.texts, strict=True))
