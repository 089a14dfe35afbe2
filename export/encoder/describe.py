"""What each encoder calls the parts around its layers; the layers' own products stand in `distill.layers`.

Adding an architecture whose layers are an encoder's is adding a line here and one there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Architecture:
    """Paths of modules; empty where there is none.

    `embeddings` holds the tables and their norm, `projection` widens what they give. Norms stand behind attention and
    feed-forward, relative to a layer. The head is `dense`, its activation and `out`; `config` keys name activation and
    epsilon. `padded`: positions count the tokens that are not padding, and begin behind the padding's id.
    """

    embeddings: str
    projection: str
    attention_norm: str
    feed_norm: str
    dense: str
    dense_activation: str
    out: str
    activation: str = "hidden_act"
    padded: bool = False


_BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_ROBERTA = Architecture(
    "roberta.embeddings", "", *_BERT_NORMS, "classifier.dense", "tanh", "classifier.out_proj", padded=True
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bert": Architecture("bert.embeddings", "", *_BERT_NORMS, "bert.pooler.dense", "tanh", "classifier"),
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "electra": Architecture(
            *("electra.embeddings", "electra.embeddings_project", *_BERT_NORMS),
            *("classifier.dense", "gelu", "classifier.out_proj"),
        ),
        "distilbert": Architecture(
            *("distilbert.embeddings", "", "sa_layer_norm", "output_layer_norm"),
            *("pre_classifier", "relu", "classifier", "activation"),
        ),
    }
)
