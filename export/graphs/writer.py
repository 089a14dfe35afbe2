"""Nodes and stored tensors of a graph while it is being written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graphs.plan import PLAN, Plan, Weights

IR_VERSION, IR_VERSION_23 = 10, 11  # of opsets from 20 and from 23 on
LEAST_OPSET = 20


@dataclass
class Writer:
    """Writes one branch of a graph. `stored` is shared by all branches, so that each weight is kept once.

    `inputs` says what a branch reads instead of values of these names.
    """

    weights: Weights
    stored: dict[str, NDArray[Any]]
    branch: str
    inputs: dict[str, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; an empty input is left out. Returns the output's name."""
        return self.nodes_of(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def nodes_of(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Append a node with several outputs and return their names."""
        stem = f"{self.branch}/{len(self.nodes)}_{kind}"
        names = [stem] if outputs == 1 else [f"{stem}.{index}" for index in range(outputs)]
        read = [self.inputs.get(name, name) for name in inputs]
        self.nodes.append(helper.make_node(kind, read, names, name=stem, domain=domain, **attributes))
        return names

    def name_output(self, value: str, name: str) -> None:
        """Call a value by the name that it has outside."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, found in enumerate(names):
                    if found == value:
                        names[index] = name

    def weight(self, name: str) -> str:
        """Store a weight of the model as it is."""
        return self.store(name, self.weights[name])

    def store(self, name: str, array: NDArray[Any]) -> str:
        """Store a tensor under this name, once."""
        self.stored.setdefault(name, array)
        return name

    def whole(self, *numbers: int) -> str:
        """A stored vector of whole numbers, named after its content."""
        return self.store("whole." + ".".join(map(str, numbers)), np.array(numbers, np.int64))

    def scalar(self, number: int) -> str:
        """A stored whole number without dimensions."""
        return self.store(f"scalar.{number}", np.array(number, np.int64))

    def real(self, number: float) -> str:
        """A stored float without dimensions."""
        return self.store(f"real.{number:.9g}", np.array(number, np.float32))

    def empty_logits(self) -> str:
        """Logits of no rows."""
        return self.store("empty_logits", np.zeros((0, 0), np.float32))


def tensors(stored: dict[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    """Stored tensors in the order of their names."""
    return [numpy_helper.from_array(np.asarray(stored[name], order="C"), name) for name in sorted(stored)]


def value(name: str, kind: int, shape: list[str | int] | None = None) -> onnx.ValueInfoProto:
    """An input or output; a size that is a text may be any, and without a shape all may."""
    return helper.make_tensor_value_info(name, kind, shape)


def branch(write: Writer, outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
    """What was written as one branch of an `If`, with these outputs."""
    return helper.make_graph(write.nodes, write.branch, [], outputs)


def model_of(graph: onnx.GraphProto, plan: Plan, opset: int, domains: tuple[tuple[str, int], ...]) -> onnx.ModelProto:
    """A graph as a file, in which its plan stays; `domains` are the operators it uses besides the standard's."""
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION if opset < 23 else IR_VERSION_23, producer_name="potstill"
    )
    helper.set_model_props(model, {PLAN: plan.to_json()})
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard's operators that a graph is written in."""
    return int(next(entry.version for entry in model.opset_import if not entry.domain))
