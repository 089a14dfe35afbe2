"""The recipe's sections about what is removed from a student, each with its recovery."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill.recipe_learning import CopiedLayers, DistillationRecipe
from distill.sections import CLASSIFICATION, TRANSLATION, Fraction, Positive, Share


class PruneRecipe(DistillationRecipe):
    """Layers, attention heads, feed-forward neurons and width to remove from the student, and the recovery after it."""

    layers: CopiedLayers | None = Field(
        None,
        description="how many layers stay, evenly spaced, or which ones (counted from 0); left out: all",
        json_schema_extra=CLASSIFICATION,
    )
    encoder_layers: CopiedLayers | None = Field(
        None, description="the same for a translation model's encoder", json_schema_extra=TRANSLATION
    )
    decoder_layers: CopiedLayers | None = Field(
        None, description="the same for its decoder (1: the last)", json_schema_extra=TRANSLATION
    )
    heads: Fraction | None = Field(
        None, description="share of the attention heads removed; left out: 0.25, or as the target needs"
    )
    neurons: Fraction | None = Field(
        None,
        description="share of the feed-forward neurons removed; left out: 0.5, or as the target needs; a classifier's "
        "last layer keeps its own, which take no time",
    )
    width: Fraction = Field(
        0.0,
        description="share of the channels of the residual stream (hidden_size, d_model) removed from the whole "
        "model, besides heads and neurons or what a target takes of these; multiples of 32 stay",
    )
    speedup: float | None = Field(
        None,
        gt=1,
        description="in place of shares: remove what costs most for its worth until the fp32 graph is at least so many "
        "times as fast, timed on one thread with one text of `length` tokens and one of a quarter of them; whole "
        "`layers` that go count, too",
    )
    latency_ms: float | None = Field(
        None, gt=0, description="in place of shares: the same until that text takes so many milliseconds"
    )
    parameters: Share | None = Field(
        None, description="in place of shares: the share of the heads' and neurons' parameters that stays"
    )
    length: Positive = Field(64, description="tokens of the text that is timed, what your texts mostly have at most")
    sparsity: Share | Literal["2:4"] | None = Field(
        None,
        description="of what stays, the share of each output's weights that is set to zero, or two of four neighbours; "
        "onnxruntime is no faster for it",
    )
    importance: Literal["taylor", "fisher", "magnitude", "movement"] = Field(
        "taylor",
        description="what says which heads, neurons and channels go: first-order change of the loss, Fisher "
        "information, the size of their weights, or scores learned in the training, which masks more and more of them "
        "and ends with all that goes (channels: taylor)",
    )
    importance_examples: Positive = Field(512, description="training rows on which importance is measured")
    rounds: Positive = Field(
        1, description="remove in so many rounds, each with its part of the training's epochs or steps behind it"
    )

    @property
    def size_targets(self) -> list[str]:
        """The targets that are given, of which one says in place of shares how much goes."""
        return [name for name in ("speedup", "latency_ms", "parameters") if getattr(self, name) is not None]

    @model_validator(mode="after")
    def _movement(self) -> PruneRecipe:
        if self.importance != "movement":
            return self
        found = [
            *self.size_targets,
            *(["sparsity"] if self.sparsity is not None else []),
            *(["rounds"] if self.rounds > 1 else []),
            *(["training: null"] if not self.training else []),
        ]
        keys = ("ema_decay", "early_stopping_patience") if self.training else ()
        found += [f"training.{key}" for key in keys if getattr(self.training, key)]
        if found:
            raise ValueError(f"movement takes shares and one training to its end, found {', '.join(found)}")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> PruneRecipe:
        shares = [name for name in ("heads", "neurons") if getattr(self, name) is not None]
        if len(self.size_targets) > 1 or (self.size_targets and shares):
            found = ", ".join([*shares, *self.size_targets])
            raise ValueError(f"give shares (`heads`, `neurons`) or one target, found {found}")
        layers = (self.layers, self.encoder_layers, self.decoder_layers)
        others = self.width or any(each is not None for each in (*layers, self.sparsity))
        if not self.size_targets and self.heads == self.neurons == 0 and not others:
            raise ValueError("nothing is removed: give `heads`, `neurons` or `width` a share, or leave `prune` out")
        return self


class FactoriseRecipe(DistillationRecipe):
    """Linear maps to put in two factors of low rank, and the recovery after it.

    These are the feed-forwards' and those after attention, of the pruned student where it is pruned. A map for which no
    rank saves anything stays whole.
    """

    energy: Share | None = Field(None, description="share of the energy of each map that its rank keeps")
    parameters: Share | None = Field(
        None,
        description="share of these maps' parameters that stays, spread over them by what a rank is worth; left out: "
        "0.5, unless `energy` is given",
    )
    weighting: Literal["loss", "inputs", "none"] = Field(
        "loss",
        description="what is kept of a map: its outputs on training rows, each as far as the loss depends on it; these "
        "outputs, all alike; or its matrix whatever it is given",
    )
    calibration_examples: Positive = Field(256, description="training rows that are looked at")

    @model_validator(mode="after")
    def _one_measure(self) -> FactoriseRecipe:
        if self.energy is not None and self.parameters is not None:
            raise ValueError("give `energy` or `parameters`, not both")
        return self
