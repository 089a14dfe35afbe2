"""What each encoder calls its parts: what prunes, resizes or exports them reads this table.

Adding an architecture is adding a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class LayerNames:
    """The names of a layer's six linear maps and two norms, relative to the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    up: str
    down: str
    attention_norm: str
    feed_norm: str


@dataclass(frozen=True)
class Architecture:
    """Paths of modules; empty where there is none.

    `embeddings` holds the tables and their norm, `projection` widens what they give. The head is `dense`, its
    activation and `out`; `config` keys name activation and epsilon. `padded`: positions count the tokens that are not
    padding, and begin behind the padding's id.
    """

    layer: LayerNames
    embeddings: str
    projection: str
    dense: str
    dense_activation: str
    out: str
    activation: str = "hidden_act"
    padded: bool = False


_BERT = LayerNames(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense", "attention.output.LayerNorm", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT = LayerNames(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
    "sa_layer_norm", "output_layer_norm",
)  # fmt: skip
_ROBERTA = Architecture(_BERT, "roberta.embeddings", "", "classifier.dense", "tanh", "classifier.out_proj", padded=True)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bert": Architecture(_BERT, "bert.embeddings", "", "bert.pooler.dense", "tanh", "classifier"),
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "electra": Architecture(
            *(_BERT, "electra.embeddings", "electra.embeddings_project"),
            *("classifier.dense", "gelu", "classifier.out_proj"),
        ),
        "distilbert": Architecture(
            *(_DISTILBERT, "distilbert.embeddings", ""), *("pre_classifier", "relu", "classifier", "activation")
        ),
    }
)
