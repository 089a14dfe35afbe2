"""Tiny encoder-decoders of each supported architecture, and torch as a step for the searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import transformers

from distill.checkpoint import save
from distill.task import Task
from export.hypotheses import Ids, Logits
from export.steps import Engine, engine_of

VOCABULARY = 50
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 40,
    "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2, "init_std": 0.4,
    "forced_eos_token_id": None,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2,
    "num_heads": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "initializer_factor": 1.0,
}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "marian": ("MarianConfig", "MarianMTModel", {**SIZES, "scale_embedding": True, "activation_function": "swish"}),
    "bart": ("BartConfig", "BartForConditionalGeneration", SIZES),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", {**SIZES, "scale_embedding": True}),
    "m2m_100": (
        "M2M100Config",
        "M2M100ForConditionalGeneration",
        {**SIZES, "scale_embedding": True, "activation_function": "relu"},
    ),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "t5-gated": (
        "T5Config",
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
}


def tiny_translator(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A model in evaluation mode; biases are random too, so that dropping one is seen."""
    config, model, sizes = MODELS[kind]
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, config)(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.3)
        if hasattr(made, "final_logits_bias"):
            made.final_logits_bias.normal_()
    return made


def lively(kind: str) -> Any:
    """A model that does not write the same token all the time."""
    model = tiny_translator(kind, **({"initializer_factor": 3.0} if "t5" in kind else {"init_std": 1.5}))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.zero_()
    return model


def opened(graph: onnx.ModelProto) -> Engine:
    """A graph in onnxruntime, without a bundle around it."""
    return engine_of(onnxruntime.InferenceSession(graph.SerializeToString()), VOCABULARY)


def source_batch(model: Any, rows: int = 3, length: int = 9, seed: int = 0) -> tuple[Ids, Ids]:
    """Ids and mask `(rows, length)`, with padding at the end of all rows but the first."""
    random = np.random.default_rng(seed)
    ids = random.integers(3, VOCABULARY, (rows, length))
    lengths = random.integers(2, length + 1, (rows, 1))
    lengths[0] = length
    mask = (np.arange(length) < lengths).astype(np.int64)
    return np.where(mask, ids, model.config.pad_token_id), mask


class TorchStep:
    """A torch model as a step. Without a cache: it reads all that was written, every time."""

    def __init__(self, model: Any, ids: Ids, mask: Ids) -> None:
        self.model, self.mask = model, torch.from_numpy(mask)
        with torch.inference_mode():
            self.states = model.get_encoder()(torch.from_numpy(ids), attention_mask=self.mask).last_hidden_state
        self.written = np.zeros((len(ids), 0), np.int64)

    def __call__(self, tokens: Ids, rows: Ids | None = None, sentences: Ids | None = None) -> Logits:
        if sentences is not None:
            self.mask, self.states = self.mask[sentences], self.states[sentences]
        self.written = np.concatenate([self.written if rows is None else self.written[rows], tokens[:, None]], 1)
        beams = len(tokens) // len(self.mask)
        with torch.inference_mode():
            found = self.model(
                encoder_outputs=(self.states.repeat_interleave(beams, 0),),
                attention_mask=self.mask.repeat_interleave(beams, 0),
                decoder_input_ids=torch.from_numpy(self.written),
            )
        return found.logits[:, -1].numpy().copy()  # type: ignore[no-any-return]


TASK = Task("translation", (), metric="bleu", max_length=24, max_target_length=16)
WORDS = ["il", "la", "un", "gatto", "cane", "casa", "libro", "dorme", "legge", "mangia", "rosso", "piccolo", "oggi"]


def toy_translation_tokenizer() -> Any:
    """A tokenizer of one vocabulary for both sides: words, letters behind them, `</s>` at the end."""
    import string

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    letters = [*(f"▁{letter}" for letter in string.ascii_lowercase), *string.ascii_lowercase, "▁"]
    pieces = [*special, *(f"▁{word}" for word in WORDS), *letters]
    scores = [0.0] * 3 + [-1.0] * len(WORDS) + [-8.0] * len(letters)
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=32
    )


def write_translator(folder: Path, kind: str = "marian", **changes: Any) -> Path:
    """A checkpoint of a tiny random model, as training writes it."""
    tokenizer = toy_translation_tokenizer()
    starts = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    if kind == "m2m_100":
        starts["decoder_start_token_id"] = 1
    extra = {} if kind.startswith("t5") else {"bos_token_id": None}
    model = tiny_translator(kind, **{**starts, **extra, **changes})
    model.generation_config.update(bad_words_ids=[[0]], no_repeat_ngram_size=2)  # random models repeat themselves
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias[0, 1] += 3  # so that some translations end by themselves
    save(model, tokenizer, TASK, folder)
    return folder


def toy_sources(count: int) -> tuple[str, ...]:
    """Sentences of the toy words."""
    random = np.random.default_rng(0)
    return tuple(" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(count))
