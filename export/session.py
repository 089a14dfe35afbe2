"""An onnxruntime session from verified bytes, with messages a person can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import BundleError, ProviderError
from export.bundle import Bundle
from export.providers import TENSORRT_INT8, check_fits, check_running, execution_providers, import_onnxruntime
from export.wire import outside_references

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
INTEGERS: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"tensor(int64)": np.dtype(np.int64), "tensor(int32)": np.dtype(np.int32)}
)
FLOATS = ("tensor(float)", "tensor(float16)")
LOG_ERRORS, LOG_NOTHING = 3, 4
TOKENS_OF_A_THREAD = 512
"""What a processor reads at once: of more, the states between layers leave its caches (docs/benchmarks.md)."""
PROVIDER_TROUBLE = re.compile(r"CUDA|cuDNN|cuBLAS|TensorRT|ExecutionProvider", re.IGNORECASE)
OPSET = re.compile(r"Opset (\d+) is under development.*?domain (\S+) is till opset (\d+)", re.DOTALL)
IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
UNKNOWN = re.compile(r"error: (\S+) is not a registered function/op|No Op registered for (\S+)")


@dataclass(frozen=True)
class Session:
    """An open model with one output of `labels` logits; `dtypes` are those of the inputs it declares.

    It reads `most_tokens` at once, padding included, or a single text; None: all there are.
    """

    onnx: Any
    labels: int
    dtypes: Mapping[str, np.dtype[Any]]
    most_tokens: int | None = None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits `(texts, labels)` of arrays `(texts, length)`; feeds what the model declares, as it declares it.

        Raises:
            BundleError: onnxruntime gives up, or an answer has another shape or is not a number.
        """
        feed = {name: np.asarray(inputs[name], dtype) for name, dtype in self.dtypes.items()}
        texts, length = feed["input_ids"].shape
        rows = texts if self.most_tokens is None else max(1, self.most_tokens // max(1, length))
        if rows >= texts:
            return self._run(feed)
        parts = (slice(start, start + rows) for start in range(0, texts, rows))
        return np.concatenate([self._run({name: array[part] for name, array in feed.items()}) for part in parts])

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits of texts that are read at once."""
        try:
            logits = self.onnx.run(None, feed)[0]
        except Exception as error:
            raise BundleError(f"the model failed: {line(error)}") from error
        if logits.shape != (len(feed["input_ids"]), self.labels):
            raise BundleError(f"the model answered {logits.shape}, expected {self.labels} logits a text")
        if not np.isfinite(logits).all():
            raise BundleError("the model answered with NaN or infinite logits: it is damaged or was trained to them")
        return np.asarray(logits, np.float32)


def open_session(bundle: Bundle, model: bytes, provider: str, threads: int | None) -> Session:
    """Open the bundle's classifier from its bytes.

    Raises:
        BundleError: it is not a model that this onnxruntime runs, or not the one bundle.json describes.
        ProviderError: the provider is missing or did not start.
        MissingExtraError: there is no onnxruntime.
    """
    onnx = open_onnx(bundle, model, provider, threads)
    _check_signature(bundle, onnx.get_inputs(), onnx.get_outputs())
    dtypes = {node.name: INTEGERS[node.type] for node in onnx.get_inputs()}
    most = TOKENS_OF_A_THREAD * (threads or os.cpu_count() or 1) if provider == "cpu" else None
    return Session(onnx, bundle.task.num_labels, dtypes, most)


def open_onnx(bundle: Bundle, model: bytes, provider: str, threads: int | None, growing: bool = False) -> Any:
    """An onnxruntime session of any model, from its bytes; it may refer to nothing outside them.

    `growing` says that nearly every run has shapes of its own, as steps of a decoder have: then planning the memory of
    each new shape takes longer than it saves.

    Raises:
        BundleError: it is not a model that this onnxruntime runs.
        ProviderError: the provider is missing or did not start, or is not for a bundle of this precision.
        MissingExtraError: there is no onnxruntime.
    """
    _check_self_contained(bundle, model)
    check_fits(provider, bundle.precision, bundle.device)
    ort = import_onnxruntime()
    names = execution_providers(provider, ort.get_available_providers())
    fixed = TENSORRT_INT8 if provider == "tensorrt" and bundle.precision == "int8-static" else {}
    providers = [(name, dict(fixed) if name == names[0] else {}) for name in names]
    try:
        # Without `enable_fallback=0` onnxruntime prints and goes on with the CPU.
        onnx = ort.InferenceSession(
            model, _options(ort, provider, threads, growing), providers=providers, enable_fallback=0
        )
    except Exception as error:
        if provider != "cpu" and PROVIDER_TROUBLE.search(str(error)):
            raise ProviderError(f"the execution provider {provider!r} did not start: {line(error)}") from error
        raise BundleError(f"{bundle.model_file} cannot be run: {_explain(error, ort.__version__)}") from error
    onnx._model_bytes = None  # kept to start again with another provider, which is switched off: as large as the file
    check_running(provider, onnx.get_providers())
    return onnx


def _options(ort: Any, provider: str, threads: int | None, growing: bool = False) -> Any:
    """One session's own settings: nothing is shared with other sessions of the process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not growing
    # Its errors are raised anyway; only why a provider did not start stands nowhere but in its log.
    options.log_severity_level = LOG_NOTHING if provider == "cpu" else LOG_ERRORS
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # A second bar behind `_check_self_contained`: a folder in which no file can lie.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def _check_self_contained(bundle: Bundle, model: bytes) -> None:
    """Refuse a model that is not protobuf or that refers to other files."""
    try:
        references = outside_references(model)
    except ValueError as error:
        raise BundleError(f"{bundle.model_file} is not an ONNX model: {error}") from error
    if references:
        raise BundleError(f"{bundle.model_file} refers to files outside itself, which is refused", references)


def _explain(error: Exception, version: str) -> str:
    """What onnxruntime's C++ message means and what to do about it."""
    text = str(error)
    if match := OPSET.search(text):
        needs, domain, most = match.groups()
        return (
            f"it needs opset {needs} of {domain}, onnxruntime {version} supports up to {most}; "
            "upgrade onnxruntime or export again with a lower --opset"
        )
    if match := IR.search(text):
        return f"it has IR version {match[1]}, onnxruntime {version} supports up to {match[2]}; upgrade onnxruntime"
    if match := UNKNOWN.search(text):
        return f"onnxruntime {version} has no operator {match[1] or match[2]}; upgrade it or export again"
    return f"{line(error)} (onnxruntime {version})"


def line(error: Exception) -> str:
    """An error of onnxruntime in one line, without its source files and signatures."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return re.sub(r"/onnxruntime_src/\S+(.*?\)(?= [A-Z!]))?", "", text).strip()[:300]


def _check_signature(bundle: Bundle, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Refuse a model whose inputs and outputs are not those of bundle.json."""
    problems = _input_problems(bundle, inputs) + _output_problems(bundle, outputs)
    if problems:
        raise BundleError(f"{bundle.model_file} is not the model that bundle.json describes", problems)


def _input_problems(bundle: Bundle, inputs: Sequence[Any]) -> list[str]:
    """What is wrong with the inputs: names, dtypes and ranks."""
    names = [node.name for node in inputs]
    problems = []
    if sorted(names) != sorted(bundle.inputs):
        problems.append(f"inputs: expected {', '.join(bundle.inputs)}, found {', '.join(names)}")
    if "input_ids" not in names:
        problems.append("inputs: there is no input_ids")
    problems += [f"input {name}: expected one of {', '.join(INPUTS)}" for name in names if name not in INPUTS]
    for node in inputs:
        if node.type not in INTEGERS or len(node.shape) != 2:
            problems.append(f"input {node.name}: expected integers (texts, length), found {_signature(node)}")
    return problems


def _output_problems(bundle: Bundle, outputs: Sequence[Any]) -> list[str]:
    """What is wrong with the output: its name, dtype, rank and number of labels."""
    names = [node.name for node in outputs]
    if names != list(bundle.outputs) or len(names) != 1:
        return [f"outputs: expected {', '.join(bundle.outputs)} alone, found {', '.join(names)}"]
    node, labels = outputs[0], bundle.task.num_labels
    fits = node.type in FLOATS and len(node.shape) == 2
    if not fits or (isinstance(node.shape[1], int) and node.shape[1] != labels):
        return [f"output {node.name}: expected floats (texts, {labels}), found {_signature(node)}"]
    return []


def _signature(node: Any) -> str:
    """Type and shape of an input or output."""
    return f"{node.type} ({', '.join(str(size) for size in node.shape)})"
