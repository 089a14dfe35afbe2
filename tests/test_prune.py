"""Pruning: what is chosen is really gone, in encoders and encoder-decoders, and it comes back from disk as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import toy_tokenizer
from test_importance import pairs, scores, word_losses
from test_seq2seq_export import assert_same_logits
from tiny_models import KINDS, LABELS, answer, tiny_batch, tiny_model
from translation_models import MODELS, TASK, tiny_translator, toy_translation_tokenizer

from compress.pruning import cost
from compress.pruning.importance import channel_importance, importance
from compress.pruning.prune import prune, prune_width, prune_within, whole_cost
from distill.channels import CHANNELS_KEY
from distill.checkpoint import save
from distill.layers import LayerSize, layers, model_config
from distill.models import copied
from distill.recipe import StudentRecipe
from distill.seq2seq import load_seq2seq
from distill.stream import stream
from distill.task import Task
from export.seq2seq.export import to_onnx


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "neurons"), [(0.25, 0.5), (0.0, 0.5), (0.5, 0.0), (0.74, 0.9)])
def test_the_shares_are_gone_from_the_model(kind: str, heads: float, neurons: float) -> None:
    model = tiny_model(kind)
    sizes = prune(model, scores(model), heads, neurons)
    assert sizes == [layer.size for layer in layers(model)]
    assert sum(size.heads for size in sizes) == round(16 * (1 - heads))
    assert abs(sum(size.neurons for size in sizes[:-1]) - round(72 * (1 - neurons))) <= 3
    assert sizes[-1].neurons == 24  # computed for one token: the last layer's neurons take no time
    assert answer(model, tiny_batch()).shape == (3, 3)


def test_the_right_ones_are_removed() -> None:
    model = tiny_model("bert")
    found = [{"heads": torch.ones(4), "neurons": torch.ones(24)} for _ in range(4)]
    for layer, score in enumerate(found):
        score["heads"][layer] = 0
        score["neurons"][layer::3] = 0
    before = [layer.linear("query").weight.clone() for layer in layers(model)]
    up = [layer.linear("up").weight.clone() for layer in layers(model)]
    sizes = prune(model, found, 0.25, 1 / 3 + 1e-9)
    assert sizes[0] == LayerSize(3, 16)
    for number, layer in enumerate(layers(model)):
        rows = [row for row in range(16) if row // 4 != number]
        assert torch.equal(layer.linear("query").weight, before[number][rows])
        neurons = [n for n in range(24) if number == 3 or not (n >= number and (n - number) % 3 == 0)]
        assert torch.equal(layer.linear("up").weight, up[number][neurons][: layer.size.neurons])


def test_an_only_layer_loses_neurons() -> None:
    model = copied(tiny_model("bert"), StudentRecipe(layers=1))
    assert prune(model, scores(model), 0.5, 0.5) == [LayerSize(2, 12)]


def test_neurons_come_in_multiples_that_processors_like() -> None:
    model = tiny_model("bert")
    for layer in layers(model):
        layer.keep({"heads": range(4), "neurons": [n % 24 for n in range(160)]})
    sizes = prune(model, scores(model), 0.25, 0.5)
    assert all(size.neurons % 32 == 0 and size.neurons >= 32 for size in sizes)


def test_a_pruned_checkpoint_answers_the_same_in_another_process(tmp_path: Path) -> None:
    model = tiny_model("bert")
    prune(model, scores(model), 0.5, 0.5)
    save(model, toy_tokenizer(), Task("classification", LABELS), tmp_path / "pruned")
    code = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_models import answer, tiny_batch
from distill.checkpoint import load_model
torch.set_num_threads(1)
print(answer(load_model(Path(sys.argv[1])), tiny_batch()).numpy().tobytes().hex())
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code, str(tmp_path / "pruned"), str(root / "tests")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = answer(model, tiny_batch()).numpy().tobytes().hex()
    torch.set_num_threads(threads)
    assert done.stdout.strip() == wanted


@pytest.mark.parametrize("kind", [kind for kind in MODELS if "t5" not in kind])
def test_encoder_decoders_lose_heads_of_both_kinds_and_neurons(kind: str, tmp_path: Path) -> None:
    model = tiny_translator(kind)
    whole = sum(value.numel() for value in model.parameters())
    prune(model, importance(model, [pairs()], word_losses, "fisher"), 0.3, 0.5)
    sizes = [layer.size for layer in layers(model)]
    assert sum(size.heads + size.cross_heads for size in sizes) == 14  # of 3 x 4 and 2 x (2 + 2)
    assert sum(size.neurons for size in sizes) == 56  # of 3 x 24 and 2 x 20
    assert sum(value.numel() for value in model.parameters()) < whole
    save(model, toy_translation_tokenizer(), TASK, tmp_path / "pruned")
    again, batch = load_seq2seq(tmp_path / "pruned"), {k: v for k, v in pairs().items() if k != "labels"}
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert_same_logits(again, to_onnx(again, TASK, 20))


@pytest.mark.parametrize("kind", ["t5", "t5-gated"])
def test_heads_that_share_a_table_stay(kind: str) -> None:
    model = tiny_translator(kind)
    found = importance(model, [pairs()], word_losses)
    before = [layer.size for layer in layers(model)]
    prune(model, found, 0.3, 0.5)
    after = [layer.size for layer in layers(model)]
    assert [size.heads for size in after] == [size.heads for size in before]
    assert sum(size.cross_heads for size in after) == 4  # of 2 x 3
    assert sum(size.neurons for size in after) == 60  # of 5 x 24
    assert_same_logits(model, to_onnx(model, TASK, 20))


@pytest.mark.parametrize("kind", ["bert", "marian", "t5-gated"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.8, 1.0])
def test_within_a_budget_of_parameters(kind: str, share: float) -> None:
    """What the costs say is gone is gone from the model."""
    encoder = kind == "bert"
    model = tiny_model(kind) if encoder else tiny_translator(kind)
    found = scores(model) if encoder else importance(model, [pairs()], word_losses)
    costs, before = cost.parameters(model), sum(value.numel() for value in model.parameters())
    budget, whole = share * whole_cost(model, costs), whole_cost(model, costs)
    sizes = prune_within(model, found, costs, budget)
    left = whole_cost(model, costs)
    assert before - sum(value.numel() for value in model.parameters()) == whole - left
    free = [size.cross_heads or 1 if kind == "t5-gated" else size.heads for size in sizes]
    assert left <= budget or set(free) == {1}  # neurons, fewer than 32 here, stay
    assert (share == 1.0) == (left == whole)


@pytest.mark.parametrize(
    ("removed", "left"), [(0.0, 16), (0.25, 12), (0.5, 8), (0.99, 1)], ids=["none", "a quarter", "half", "all but one"]
)
@pytest.mark.parametrize("kind", ["bert", "marian", "t5"])
def test_the_channels_that_matter_stay(kind: str, removed: float, left: int) -> None:
    model = tiny_model(kind) if kind in KINDS else tiny_translator(kind)
    worth = torch.tensor([3.0, 16, 1, 9, 11, 2, 12, 15, 4, 13, 14, 5, 6, 7, 8, 10])
    assert prune_width(model, worth, removed) == stream(model).width == left
    best = sorted(worth.argsort(descending=True)[:left].tolist())
    assert getattr(model_config(model), CHANNELS_KEY, list(range(16))) == best


@pytest.mark.parametrize(("width", "removed", "left"), [(96, 0.25, 64), (96, 0.1, 96), (96, 0.9, 32), (80, 0.4, 64)])
def test_channels_come_in_multiples_that_processors_like(width: int, removed: float, left: int) -> None:
    model = tiny_translator("marian", d_model=width)
    worth = channel_importance(model, [pairs()], word_losses)
    assert prune_width(model, worth, removed) == left
    prune(model, importance(model, [pairs()], word_losses), 0.3, 0.0)
    assert_same_logits(model, to_onnx(model, TASK, 20))
