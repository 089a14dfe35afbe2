"""The recipe: everything a run needs to know, read from YAML and checked all at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe_data import DataRecipe, FilterRecipe, SplitRecipe, TaskRecipe
from distill.recipe_file import checked, read_yaml, with_overrides
from distill.recipe_learning import (
    DistillationRecipe,
    DistillationTraining,
    LabelRecipe,
    StudentRecipe,
    TeacherRecipe,
    TrainingRecipe,
    VocabularyRecipe,
)
from distill.recipe_shrinking import FactoriseRecipe, PruneRecipe
from distill.sections import CLASSIFICATION, TRANSLATION, Count, Different, Positive, Section, foreign

__all__ = [
    "BenchRecipe",
    "DataRecipe",
    "DistillationRecipe",
    "DistillationTraining",
    "ExportRecipe",
    "FactoriseRecipe",
    "FilterRecipe",
    "LabelRecipe",
    "PruneRecipe",
    "QuantizeRecipe",
    "Recipe",
    "SplitRecipe",
    "StudentRecipe",
    "TaskRecipe",
    "TeacherRecipe",
    "TrainingRecipe",
    "VocabularyRecipe",
    "load",
    "parse",
]


Beams = Annotated[int, Field(ge=1, le=64)]
Method = Literal["dynamic", "static", "int8-weights", "int4-weights", "inc-static", "fp16"]
Device = Literal["cpu", "cuda", "tensorrt"]
METHODS: Mapping[str, tuple[tuple[Method, ...], str]] = MappingProxyType(
    {
        "cpu": (
            ("dynamic", "static", "int8-weights", "int4-weights", "inc-static"),
            "processors compute float16 more slowly than float32; fp16 is for `device: cuda`",
        ),
        "cuda": (
            ("fp16",),
            "onnxruntime has no int8 products for CUDA, where int8 models are slower than fp32; leave methods out, or "
            "take `device: tensorrt`",
        ),
        "tensorrt": (("static",), "TensorRT reads int8 with fixed ranges alone; leave methods out"),
    }
)
"""For each device what its bundles may be, and why nothing else."""


class ExportRecipe(Section):
    """The fp32 ONNX graph."""

    opset: int = Field(20, ge=17, le=23, description="ONNX operator set")
    atol: float = Field(1e-4, gt=0, description="largest difference of a logit between torch and onnxruntime")


class QuantizeRecipe(Section):
    """The smaller form, and the gate it has to pass on the validation split."""

    device: Device = Field("cpu", description="what runs the bundle: int8 for cpu and tensorrt, fp16 for cuda")
    methods: Annotated[tuple[Method, ...], Different] | None = Field(
        None,
        min_length=1,
        description="what is tried, the preferred one first; left out: for cpu dynamic and static, translation dynamic "
        "alone; for cuda fp16; for tensorrt static. int8-weights takes twice as long as dynamic and loses less; "
        "int4-weights is the smallest; inc-static has neural-compressor (extra inc) choose the ranges of static int8, "
        "from a checkpoint or in a run",
    )
    calibration_examples: Positive = Field(
        256, description="training rows that set the ranges of static int8", json_schema_extra=CLASSIFICATION
    )
    exclude: Literal["auto"] | Annotated[tuple[str, ...], Different] = Field(
        "auto",
        description="products that stay float, by name (`compress scan` lists them); auto: none, but where the gate "
        "rejects every method, those that int8 hurts most, as few as it takes and at most a quarter",
    )
    smooth: bool = Field(
        True,
        description="hand channels of activations that stand out to the weights, before int8",
        json_schema_extra=CLASSIFICATION,
    )
    ranges: Literal["minmax", "percentile", "mse"] = Field(
        "minmax",
        description="ranges of static int8: all values of the calibration rows, a percentile of them, or what has the "
        "least mean squared error",
        json_schema_extra=CLASSIFICATION,
    )
    percentile: float = Field(
        99.99,
        gt=50,
        le=100,
        description="per cent of the values that a range holds, with ranges: percentile",
        json_schema_extra=CLASSIFICATION,
    )
    shortlist: Count = Field(
        0,
        description="weigh so many likely translations of each source piece and 200 frequent pieces at each step, not "
        "the whole vocabulary: faster; 0: all pieces",
        json_schema_extra=TRANSLATION,
    )
    max_drop: float | None = Field(
        None,
        ge=0,
        description="largest loss of the metric against fp32, in its own unit; left out: 0.01, for translation 0.3",
    )
    margin: float | None = Field(
        None,
        ge=0,
        description="how far the 95 % interval of that loss may reach beyond max_drop; left out: 0.02, for translation "
        "0.7",
    )
    max_flips: float | None = Field(
        None,
        ge=0,
        le=1,
        description="largest share of answers that depend on the rest of the batch; left out: 0.02, for translation 1, "
        "which only counts them",
    )

    @model_validator(mode="after")
    def _methods_of_device(self) -> QuantizeRecipe:
        fitting, why = METHODS[self.device]
        strange = [method for method in self.methods or () if method not in fitting]
        if strange:
            raise ValueError(f"methods {', '.join(strange)} do not go with device {self.device}: {why}")
        if self.shortlist and (self.device != "cpu" or set(self.methods or ()) - {"dynamic"}):
            raise ValueError("shortlist goes with device cpu and method dynamic alone")
        if "inc-static" in (self.methods or ()) and self.exclude not in ("auto", ()):
            raise ValueError("exclude does not go with method inc-static, which knows no products by these names")
        if self.device == "cuda" and self.exclude not in ("auto", ()):
            raise ValueError("exclude goes with int8, and device cuda has none; leave it out")
        return self


class BenchRecipe(Section):
    """What is timed."""

    batch_sizes: Annotated[tuple[Positive, ...], Different] = Field(
        (1, 8, 32), min_length=1, description="rows a batch"
    )
    lengths: Annotated[tuple[Positive, ...], Different] | None = Field(
        None,
        min_length=1,
        description="tokens a row; left out: 16, 64 and 128, for translation none but those of real sentences",
    )
    beams: Annotated[tuple[Beams, ...], Different] = Field(
        (1,),
        min_length=1,
        description="widths of the beam search, 1 is greedy; quality is that of the first",
        json_schema_extra=TRANSLATION,
    )
    threads: Annotated[tuple[Positive | Literal["all"], ...], Different] = Field(
        (1, "all"), min_length=1, description="processor threads"
    )
    devices: Annotated[tuple[Device, ...], Different] = Field(("cpu",), min_length=1, description="where")
    against: Annotated[tuple[Literal["torch", "openvino", "ctranslate2", "optimum"], ...], Different] = Field(
        (),
        description="other engines, measured with the same weights in the same rounds (`make peers` installs them); "
        "torch is measured anyway where there is a checkpoint",
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
    """A whole run, from labelled text or translations to a tested bundle."""

    format: Literal[1] = Field(1, description="version of the recipe's format")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run's folder is runs/NAME")
    seed: int = Field(42, ge=0, description="for splits, weights, order of rows and intervals")
    processes: Positive = Field(
        1, description="processes of this machine that train and label together, each on its own batches"
    )
    data: DataRecipe
    task: TaskRecipe = TaskRecipe()
    teacher: TeacherRecipe
    vocabulary: VocabularyRecipe | None = Field(
        None, description="left out: the defaults, where a model is built from a config", json_schema_extra=TRANSLATION
    )
    label: LabelRecipe = Field(LabelRecipe(), json_schema_extra=TRANSLATION)
    student: StudentRecipe = StudentRecipe()
    prune: PruneRecipe | None = Field(None, description="left out: nothing is pruned")
    factorise: FactoriseRecipe | None = Field(None, description="left out: no map is put in factors")
    export: ExportRecipe = ExportRecipe()
    quantize: QuantizeRecipe | None = Field(QuantizeRecipe(), description="null: the bundle stays fp32")
    bench: BenchRecipe = BenchRecipe()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Recipe:
        strange = list(foreign(self, self.task.kind))
        if strange:
            raise ValueError(f"these keys do not go with task.kind {self.task.kind}: {', '.join(strange)}")
        if self.task.kind == "classification" and isinstance(self.student.config, dict):
            raise ValueError("student.config: expected the path of a config.json")
        return self

    @model_validator(mode="after")
    def _int8_of_this_kind(self) -> Recipe:
        gate = self.quantize or QuantizeRecipe()
        static = {"static", "inc-static"} & set(gate.methods or ())
        if self.task.kind == "translation" and (static or gate.device == "tensorrt"):
            raise ValueError("quantize: translation has no static int8, nor a form for tensorrt; take another method")
        if self.task.kind == "classification" and max(gate.max_drop or 0, gate.margin or 0) >= 1:
            raise ValueError("quantize: max_drop and margin are shares here, one point is 0.01; expected less than 1")
        return self


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
