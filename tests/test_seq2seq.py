"""Encoder-decoders: built, loaded, refused; what the decoder reads; which languages they are told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from toy_translation import MARIAN, reversals
from transformers import MBart50Tokenizer, PreTrainedTokenizerBase

from distill.checkpoint import load_tokenizer, save
from distill.errors import CheckpointError, RecipeError
from distill.recipe import VocabularyRecipe
from distill.seq2seq import build_seq2seq, load_seq2seq, set_languages, shifted
from distill.seq2seq_student import copied_seq2seq
from distill.task import Task
from distill.translate import Search, by_length, translate
from distill.vocabulary import train_vocabulary

TASK = Task("translation", (), text="en", metric="bleu", max_length=16)
BART = {key: value for key, value in MARIAN.items() if key != "model_type"}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    kind: {"model_type": kind, **BART, "encoder_layers": 4, "decoder_layers": 4}
    for kind in ("marian", "bart", "mbart", "m2m_100")
} | {"t5": {"model_type": "t5", **T5}}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_vocabulary([side for pair in reversals(50) for side in pair], VocabularyRecipe(size=300))


def tiny(kind: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Any:
    """A model whose weights are large enough to matter."""
    model = build_seq2seq(CONFIGS[kind], tokenizer, TASK, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" not in name and "embed_positions" not in name:
                value.normal_(std=0.3)
    return model


def answer(model: Any) -> torch.Tensor:
    ids = torch.tensor([[270, 265, 1], [260, 1, 0]])
    with torch.no_grad():
        mask = (ids != 0).long()
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=torch.tensor([[0, 261], [0, 262]])).logits
    return cast(torch.Tensor, logits)


def test_computed_positions_are_not_learned_after_loading(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Several processes would wait for their gradients, which never come."""
    save(tiny("marian", tokenizer), tokenizer, TASK, tmp_path)
    model = load_seq2seq(tmp_path)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_from_keys_goes_through_a_folder(kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = tiny(kind, tokenizer)
    config = model.config
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id) == (len(tokenizer), 0, 1)
    assert config.decoder_start_token_id == model.generation_config.decoder_start_token_id == 0
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "tied"
    save(model, tokenizer, TASK, tmp_path / "model")
    again = cast(Any, load_seq2seq(tmp_path / "model"))
    assert torch.equal(answer(again), answer(model))
    assert again.generation_config.bad_words_ids == [[0]]
    texts = [side for pair in reversals(9) for side in pair]
    found = [translate(one, tokenizer, texts, TASK, Search(beams=2, n_best=2)) for one in (model, again)]
    assert found[0] == found[1]


def test_embeddings_are_scaled_unless_the_keys_say_otherwise(tokenizer: PreTrainedTokenizerBase) -> None:
    assert cast(Any, build_seq2seq(MARIAN, tokenizer, TASK, 0)).config.scale_embedding is True
    given = {**MARIAN, "scale_embedding": False}
    assert cast(Any, build_seq2seq(given, tokenizer, TASK, 0)).config.scale_embedding is False


def test_the_seed_decides(tokenizer: PreTrainedTokenizerBase) -> None:
    found = [answer(build_seq2seq(MARIAN, tokenizer, TASK, seed)) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


BAD_CONFIGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"decoder_layer": 3}, CheckpointError, "decoder_layer: marian has no such key; did you mean decoder_layers?"),
    ({"model_type": "marion"}, CheckpointError, "model_type: expected an architecture"),
    ({"model_type": "bert"}, CheckpointError, "bert models do not translate"),
    ({"auto_map": {"AutoModel": "x.py"}}, CheckpointError, "auto_map asks for code"),
    ({"d_model": 33}, CheckpointError, "no encoder-decoder can be built"),
    ({"max_position_embeddings": 8}, RecipeError, "max_position_embeddings is 8, the task uses up to 16"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_CONFIGS)
def test_configs_that_cannot_be(
    tokenizer: PreTrainedTokenizerBase, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as found:
        build_seq2seq({**MARIAN, **change}, tokenizer, TASK, 0)
    assert message in str(found.value)


def test_learned_positions_are_not_filled_with_random_ones(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tiny("bart", tokenizer), tokenizer, TASK, tmp_path / "bart")
    tensors = load_file(tmp_path / "bart" / "model.safetensors")
    name = next(name for name in tensors if name.endswith("decoder.embed_positions.weight"))
    del tensors[name]
    save_file(tensors, tmp_path / "bart" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="weights are missing") as error:
        load_seq2seq(tmp_path / "bart")
    assert name in str(error.value)


def test_row_61_folders_that_are_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, tiny_encoder: Path
) -> None:
    from safetensors.torch import load_file, save_file

    save(tiny("marian", tokenizer), tokenizer, TASK, tmp_path / "good")
    with pytest.raises(CheckpointError, match="bert models do not translate"):
        load_seq2seq(tiny_encoder)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_seq2seq(tmp_path / "nowhere")
    gaps = shutil.copytree(tmp_path / "good", tmp_path / "gaps")
    tensors = load_file(gaps / "model.safetensors")
    del tensors["model.decoder.layers.2.fc1.weight"]
    tensors["model.encoder.layers.0.fc2.bias"] = torch.zeros(3)
    save_file(tensors, gaps / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="weights are missing") as error:
        load_seq2seq(gaps)
    assert error.value.problems == ("model.decoder.layers.2.fc1.weight", "model.encoder.layers.0.fc2.bias")
    (tmp_path / "good" / "model.safetensors").rename(tmp_path / "good" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be used as a model"):
        load_seq2seq(tmp_path / "good")


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_the_decoder_reads(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    labels = torch.tensor([[261, 262, 1], [263, 1, -100]])
    expected = [[0, 261, 262], [0, 263, 1]] if kind != "mbart" else [[1, 261, 262], [1, 263, 1]]
    assert shifted(tiny(kind, tokenizer), labels).tolist() == expected, "mBART begins with the last piece"


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_copy_of_all_layers_answers_as_the_teacher(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    teacher = tiny(kind, tokenizer)
    assert torch.equal(answer(copied_seq2seq(teacher, 4, 4)), answer(teacher))


CHOSEN: list[tuple[Any, Any, list[int], list[int]]] = [
    (3, 2, [0, 1, 3], [0, 3]),
    (None, 1, [0, 1, 2, 3], [3]),
    (1, (0,), [0], [0]),
    ((3, 1), (1, 2, 3), [3, 1], [1, 2, 3]),
    ((0, 1, 1, 2, 2, 3), 1, [0, 1, 1, 2, 2, 3], [3]),
]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(("encoder", "decoder", "in_encoder", "in_decoder"), CHOSEN)
def test_some_layers_are_copied_and_the_rest_is_kept(
    kind: str,
    encoder: Any,
    decoder: Any,
    in_encoder: list[int],
    in_decoder: list[int],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    teacher = tiny(kind, tokenizer)
    student = cast(Any, copied_seq2seq(teacher, encoder, decoder))
    own, source = student.state_dict(), teacher.state_dict()
    stack = "block" if kind == "t5" else "layers"
    prefix = "" if kind == "t5" else "model."
    for side, kept in (("encoder", in_encoder), ("decoder", in_decoder)):
        for new, old in enumerate(kept):
            name = f"{prefix}{side}.{stack}.{new}."
            weights = {key.removeprefix(name): value for key, value in own.items() if key.startswith(name)}
            assert weights
            for key, value in weights.items():
                layer = 0 if "relative_attention_bias" in key else old  # T5's first layers hold those of all
                assert torch.equal(value, source[f"{prefix}{side}.{stack}.{layer}.{key}"])
        assert f"{prefix}{side}.{stack}.{len(kept)}." not in " ".join(own)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight, "tied"
    assert student.generation_config.to_dict() == teacher.generation_config.to_dict()
    assert answer(student).shape == answer(teacher).shape


def test_left_out_all_encoder_layers_and_half_of_the_decoder_are_copied(tokenizer: PreTrainedTokenizerBase) -> None:
    config = cast(Any, copied_seq2seq(tiny("marian", tokenizer), None, None)).config
    assert (config.encoder_layers, config.decoder_layers) == (4, 2)
    with pytest.raises(RecipeError, match=r"student\.decoder_layers: 5 layers cannot be copied from a teacher of 4"):
        copied_seq2seq(tiny("marian", tokenizer), None, 5)
    with pytest.raises(RecipeError, match=r"student\.encoder_layers: expected numbers from 0 to 3, found \[4\]"):
        copied_seq2seq(tiny("marian", tokenizer), (4,), 1)


def mbart_tokenizer() -> PreTrainedTokenizerBase:
    """mBART-50's own class over a few pieces."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *(f"▁{digit}" for digit in range(10)), *map(str, range(10))]
    return MBart50Tokenizer(vocab=[(piece, -1.0) for piece in pieces], src_lang="en_XX")


def test_languages_of_a_model_that_knows_several(tmp_path: Path) -> None:
    tokenizer = mbart_tokenizer()
    model = cast(Any, build_seq2seq(CONFIGS["mbart"], tokenizer, TASK, 0))
    task = Task("translation", (), metric="bleu", max_length=16, source_language="it_IT", target_language="de_DE")
    set_languages(model, tokenizer, task)
    italian, german = tokenizer.convert_tokens_to_ids(["it_IT", "de_DE"])
    assert tokenizer("1 2").input_ids[0] == italian
    labels = tokenizer(text_target="1 2").input_ids
    assert (labels[0], labels[-1]) == (german, tokenizer.eos_token_id)
    assert model.generation_config.forced_bos_token_id == german
    texts = ["1 2 3", "4"]
    found = translate(model, tokenizer, texts, task, Search(beams=2))
    save(model, tokenizer, task, tmp_path)
    again, other = load_seq2seq(tmp_path), load_tokenizer(tmp_path)
    assert cast(Any, again).generation_config.forced_bos_token_id == german
    set_languages(again, other, task)
    assert translate(again, other, texts, task, Search(beams=2)) == found


@pytest.mark.parametrize(
    ("languages", "problems"),
    [
        ({"source_language": "en_XX"}, ("task.target_language: expected a language code, found none",)),
        (
            {"source_language": "english", "target_language": "de_DE"},
            ("task.source_language: the tokenizer has no 'english'",),
        ),
    ],
)
def test_languages_that_the_tokenizer_does_not_know(languages: dict[str, str], problems: tuple[str, ...]) -> None:
    tokenizer = mbart_tokenizer()
    model = build_seq2seq(CONFIGS["mbart"], tokenizer, TASK, 0)
    with pytest.raises(RecipeError) as error:
        set_languages(model, tokenizer, Task("translation", (), metric="bleu", **languages))
    assert error.value.problems == problems


def test_a_tokenizer_without_languages_takes_any(tokenizer: PreTrainedTokenizerBase) -> None:
    model = cast(Any, tiny("marian", tokenizer))
    before = model.generation_config.to_dict()
    set_languages(model, tokenizer, Task("translation", (), metric="bleu", target_language="it"))
    assert model.generation_config.to_dict() == before


def test_answers_do_not_depend_on_the_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny("marian", tokenizer, 3)
    texts = [source for source, _ in reversals(20)]
    for search in (Search(), Search(beams=3, n_best=2)):
        whole = translate(model, tokenizer, texts, TASK, search)
        assert all(len(found) == search.n_best for found in whole)
        small = Search(search.beams, search.n_best, max_batch_tokens=30)
        assert translate(model, tokenizer, texts, TASK, small) == whole
        assert [translate(model, tokenizer, [text], TASK, search)[0] for text in texts] == whole
    assert translate(model, tokenizer, [], TASK, Search()) == []


def test_row_49_a_decoder_that_never_ends_is_stopped_and_says_so(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny("marian", tokenizer)
    with torch.no_grad():
        model.final_logits_bias[0, 1] = -1e9
    assert all(not found[0].ended for found in translate(model, tokenizer, ["1 2", "3"], TASK, Search()))
    with torch.no_grad():
        model.final_logits_bias[0, 1] = 1e9
    assert translate(model, tokenizer, ["1 2"], TASK, Search())[0][0].ended
    model.generation_config.forced_eos_token_id = 1
    with torch.no_grad():
        model.final_logits_bias[0, 1] = -1e9
    assert not translate(model, tokenizer, ["1 2"], TASK, Search())[0][0].ended, "an end that was forced"


@pytest.mark.parametrize(
    ("sizes", "budget", "batches"),
    [
        ([3, 5, 4], 10, [[1, 2], [0]]),
        ([3, 5, 4], 4, [[1], [2], [0]]),
        ([2, 2, 2], 6, [[0, 1, 2]]),
        ([], 6, []),
    ],
)
def test_batches_by_length(sizes: list[int], budget: int, batches: list[list[int]]) -> None:
    assert list(by_length(sizes, budget)) == batches
