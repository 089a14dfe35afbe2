"""The rows of a report: frozen, flat, one number with its n and interval each. Torch-free.

Fields with a default are optional in `report.json`; everything else must be there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """One model's score on one split; the difference is to the `baseline` model on the same examples.

    For translations, `beams` is the width of the search, and `stopped` counts those that only the length limit ended.
    """

    model: str
    runtime: str
    precision: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    signature: str
    method: str | None = None
    baseline: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    flipped: int | None = None
    difference_signature: str | None = None
    beams: int | None = None
    stopped: int | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.model, self.runtime, self.precision, self.method, self.split, self.metric, self.beams


@dataclass(frozen=True)
class Latency:
    """One model's times in one cell of the grid; `work` is "ids" (fixed token ids) or "text" (tokenizer included).

    `speedup` is the baseline's median time over this one's, paired by round. `length` counts tokens; for "text" it is
    the mean length of the texts. `others_cores` is how many cores other processes took meanwhile; where that was too
    much to judge by these times, `reason` says so.

    A translation model writes `new_tokens` a sentence, as many as `length` where `work` is "ids", and otherwise what it
    itself finds right: so words and tokens a second (the medians of the rounds) say more than times do.
    """

    model: str
    runtime: str
    precision: str
    device: str
    threads: int
    batch: int
    length: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float
    runs: int
    work: str = "ids"
    method: str | None = None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    baseline: str | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    others_cores: float | None = None
    beams: int | None = None
    new_tokens: float | None = None
    tokens_per_second: float | None = None
    words_per_second: float | None = None
    words_per_second_low: float | None = None
    words_per_second_high: float | None = None
    reason: str | None = None

    @property
    def cell(self) -> tuple[object, ...]:
        """What was asked of each model that was measured together with this one."""
        return self.work, self.device, self.threads, self.batch, self.length, self.beams

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.model, self.runtime, self.precision, self.method, *self.cell


@dataclass(frozen=True)
class Size:
    """Bytes of all files that inference needs, and of the weights (or graph) file among them."""

    model: str
    precision: str
    bytes: int
    runtime: str | None = None
    method: str | None = None
    weights_bytes: int | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.model, self.precision, self.runtime, self.method


@dataclass(frozen=True)
class Memory:
    """Peak resident bytes of a fresh process that loads one model and answers one batch, libraries included.

    `import_bytes` is the peak before the model is read: what the libraries alone take. `load_ms` runs from the call
    to the loaded model, the libraries already imported.
    """

    model: str
    peak_bytes: int
    runtime: str | None = None
    precision: str | None = None
    method: str | None = None
    import_bytes: int | None = None
    load_ms: float | None = None
    threads: int | None = None
    batch: int | None = None
    length: int | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.model, self.runtime, self.precision, self.method


@dataclass(frozen=True)
class Parity:
    """How often two forms of one model answer alike; `max_abs` is the largest difference of a logit, for labels."""

    a: str
    b: str
    agreement: float
    n: int
    max_abs: float | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.a, self.b


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a bundle costs; `rest` is what belongs to no layer, so that a bundle's rows add up to its file.

    `parameters` are elements of weights, of whatever type; `products` those with a stored weight, and `zeros` the share
    of zeros in these weights. `ms` is that of one text or batch: of a layer the medians of its nodes over `runs` rounds
    in onnxruntime's profile, on one thread, and of the rest what the fastest run without the profiler takes beyond
    that. `share` is a part of all rows' time. Sizes that a graph does not tell are left out.
    """

    model: str
    precision: str
    layer: str
    bytes: int
    parameters: int
    products: int
    int8_products: int
    ms: float
    share: float
    runtime: str | None = None
    method: str | None = None
    heads: int | None = None
    cross_heads: int | None = None
    neurons: int | None = None
    zeros: float | None = None
    batch: int | None = None
    length: int | None = None
    work: str | None = None
    runs: int | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this row from others."""
        return self.model, self.runtime, self.precision, self.method, self.layer
