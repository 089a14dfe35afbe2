"""CTranslate2: a checkpoint's weights in its own format. Runs in the peer's environment.

Its converter wants the files of Marian's own tokenizer; a checkpoint has a tokenizer.json alone. So the specification
is filled in here, from the weights' names, for Marian models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.serve import Ids, main

Weights = dict[str, NDArray[np.float32]]
MAP = "vmap.txt"
"""CTranslate2's name for the words that each word of a source may become; where there is one, it is used."""


class Model:
    """An open translator."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        import ctranslate2

        tokens: list[str] = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
        self.tokens, self.numbers = tokens, {token: number for number, token in enumerate(tokens)}
        self.mapped = (folder / MAP).is_file()
        self.model = ctranslate2.Translator(
            str(folder),
            device="cpu",
            compute_type="int8" if precision == "int8" else "float32",
            inter_threads=1,
            intra_threads=threads,
        )

    def translate(self, ids: Ids, mask: Ids, beams: int, least: int, most: int) -> list[list[int]]:
        """The tokens of the best translation of each row."""
        rows = [[self.tokens[number] for number in row] for row in _rows(ids, mask)]
        found = self.model.translate_batch(
            rows, beam_size=beams, min_decoding_length=least, max_decoding_length=most, max_input_length=0,
            use_vmap=self.mapped,
        )  # fmt: skip
        return [[self.numbers[token] for token in each.hypotheses[0]] for each in found]


def _rows(ids: Ids, mask: Ids) -> list[list[int]]:
    """The ids of each row without its padding."""
    return [row[:length].tolist() for row, length in zip(ids, mask.sum(axis=1), strict=True)]


def prepare(source: Path, target: Path, precision: str, calibration: Path | None) -> None:
    """Convert the checkpoint `source`."""
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "marian":
        raise SystemExit(f"{config['model_type']} models are not converted for CTranslate2; supported: marian")
    vocabulary = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = _tokens(vocabulary, config["vocab_size"])
    weights = {name: value.astype(np.float32) for name, value in load_file(source / "model.safetensors").items()}
    spec = _marian(config, weights, tokens)
    spec.validate()
    spec.optimize(quantization="int8" if precision == "int8" else None)
    spec.save(str(target))
    (target / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")


def _tokens(tokenizer: dict[str, Any], size: int) -> list[str]:
    """The tokens in the order of their numbers."""
    stored = tokenizer["model"]["vocab"]
    pairs = stored.items() if isinstance(stored, dict) else ((piece, i) for i, (piece, _) in enumerate(stored))
    found = [f"<unused{number}>" for number in range(size)]
    for token, number in [*pairs, *((each["content"], each["id"]) for each in tokenizer.get("added_tokens", []))]:
        found[number] = token
    return found


def _marian(config: dict[str, Any], weights: Weights, tokens: list[str]) -> Any:
    """Marian: norms after the residual, one table for both sides."""
    from ctranslate2.specs import common_spec, transformer_spec

    activations = {"relu": "RELU", "gelu": "GELU", "swish": "SWISH", "silu": "SWISH"}
    options = {
        "pre_norm": False,
        "activation": getattr(common_spec.Activation, activations[config["activation_function"]]),
    }
    kinds = (transformer_spec.TransformerEncoderSpec, transformer_spec.TransformerDecoderSpec)
    sides = [
        kind(config[f"{side}_layers"], config[f"{side}_attention_heads"], **options)
        for side, kind in zip(("encoder", "decoder"), kinds, strict=True)
    ]
    spec = transformer_spec.TransformerSpec(*sides)
    table = weights.get("model.shared.weight", weights.get("lm_head.weight"))
    for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        rows = weights.get(f"model.{name}.embed_tokens.weight", table)
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = rows
        side.scale_embeddings = config["d_model"] ** 0.5 if config["scale_embedding"] else 1.0
        side.position_encodings.encodings = _positions(config, weights, name)
        for number, layer in enumerate(side.layer):
            _marian_layer(layer, weights, f"model.{name}.layers.{number}", cross=name == "decoder")
    spec.decoder.projection.weight = weights.get("lm_head.weight", table)
    bias = weights.get("final_logits_bias")
    if bias is not None and bias.any():
        spec.decoder.projection.bias = bias.reshape(-1)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.eos_token = tokens[config["eos_token_id"]]
    spec.config.unk_token = tokens[config.get("unk_token_id") or config["eos_token_id"]]
    spec.config.bos_token = tokens[config["decoder_start_token_id"]]
    spec.config.decoder_start_token = tokens[config["decoder_start_token_id"]]
    spec.config.add_source_eos = False
    return spec


def _positions(config: dict[str, Any], weights: Weights, side: str) -> NDArray[np.float32]:
    """The sinusoidal table `(positions, width)`: all sines, then all cosines."""
    stored = weights.get(f"model.{side}.embed_positions.weight")
    if stored is not None:
        return stored
    count, width = config["max_position_embeddings"], config["d_model"]
    angle = np.arange(count)[:, None] / 10000 ** (2 * (np.arange(width // 2)) / width)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def _marian_layer(spec: Any, weights: Weights, stem: str, cross: bool) -> None:
    """One layer of either side."""
    own, over = spec.self_attention, f"{stem}.self_attn"
    _linear(own.linear[0], weights, [f"{over}.{part}_proj" for part in "qkv"])
    _linear(own.linear[1], weights, [f"{over}.out_proj"])
    _norm(own.layer_norm, weights, f"{stem}.self_attn_layer_norm")
    if cross:
        other, over = spec.attention, f"{stem}.encoder_attn"
        _linear(other.linear[0], weights, [f"{over}.q_proj"])
        _linear(other.linear[1], weights, [f"{over}.{part}_proj" for part in "kv"])
        _linear(other.linear[2], weights, [f"{over}.out_proj"])
        _norm(other.layer_norm, weights, f"{stem}.encoder_attn_layer_norm")
    _linear(spec.ffn.linear_0, weights, [f"{stem}.fc1"])
    _linear(spec.ffn.linear_1, weights, [f"{stem}.fc2"])
    _norm(spec.ffn.layer_norm, weights, f"{stem}.final_layer_norm")


def _linear(spec: Any, weights: Weights, names: list[str]) -> None:
    """One linear map of one or several side by side."""
    spec.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    spec.bias = np.concatenate([weights[f"{name}.bias"] for name in names])


def _norm(spec: Any, weights: Weights, name: str) -> None:
    """A layer norm."""
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


if __name__ == "__main__":
    main(Model, prepare)
