"""What is wanted beside other engines, and how far a report is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.markdown import table
from bench.words import ms
from distill.report import Latency, Report, Size

PEERS = ("openvino", "ctranslate2", "optimum")


@dataclass(frozen=True)
class Shape:
    """A translation model."""

    encoder_layers: int
    decoder_layers: int
    width: int
    feed_forward: int
    pieces: int

    @property
    def name(self) -> str:
        """Layers and width."""
        return f"translation {self.encoder_layers}-{self.decoder_layers}x{self.width}"


SHAPES = (Shape(6, 2, 256, 1536, 16_000), Shape(6, 6, 512, 2048, 32_000))
SMALL, LARGE = (shape.name for shape in SHAPES)
GOALS: Mapping[str, float] = MappingProxyType(
    {
        "encoder 6x384, 1x16": 0.8,
        "encoder 6x384, 1x64": 0.95,
        "encoder 6x384, 8x128": 1.15,
        "encoder 6x384, 32 sentences": 1.0,
        f"{SMALL}, greedy, batch 1": 1 / 1.5,
        f"{SMALL}, greedy, batch 16": 1 / 1.2,
        f"{SMALL}, greedy, batch 32": 1 / 1.2,
        f"{SMALL}, 4 beams, batch 1": 1.0,
        f"{SMALL}, 4 beams, batch 16": 1.0,
        f"{LARGE}, greedy, batch 1": 1.0,
        f"{LARGE}, greedy, batch 16": 1.0,
        f"{LARGE}, 4 beams, batch 1": 1.0,
        f"{LARGE}, 4 beams, batch 16": 1.0,
    }
)
"""Our time over that of the fastest other engine, at most."""
OWN_FILE = "encoder 6x384, static file"
OWN_FILE_GOAL, BYTES_GOAL = 1.05, 1.05
SHORTLIST = ", shortlist"


def work_of(row: Latency) -> str:
    """What all engines did in a row's cell."""
    model = "encoder 6x384" if row.model == OWN_FILE else row.model.removesuffix(SHORTLIST)
    if row.beams is not None:
        return f"{model}, {'greedy' if row.beams == 1 else f'{row.beams} beams'}, batch {row.batch}"
    return f"{model}, {row.batch} sentences" if row.work == "text" else f"{model}, {row.batch}x{row.length}"


def goals(report: Report) -> str:
    """Each goal, and how far our int8 bundle is from the fastest other engine."""
    rows = [found for work, most in GOALS.items() if (found := _time(report.latency, work, most))]
    rows += _shortlisted(report.latency) + _own_file(report.latency) + _bytes(report.size)
    return table(["work, int8, one thread", "ours", "the best other", "ours / theirs [95 %]", "goal"], rows)


def _shortlisted(rows: Sequence[Latency]) -> list[list[str]]:
    """Translation models with a shortlist: ours, and CTranslate2's with the same one."""
    listed = {(row.work, row.runtime): row for row in rows if row.model.endswith(SHORTLIST) and row.work in GOALS}
    found = []
    for work in dict.fromkeys(work for work, _ in listed):
        ours, theirs = listed.get((work, "onnxruntime")), listed.get((work, "ctranslate2"))
        if ours is not None and theirs is not None:
            times = [f"{ms(ours.p50_ms)} ms", f"ctranslate2 {ms(theirs.p50_ms)} ms"]
            found.append([f"{work}{SHORTLIST}", *times, _ratio(ours, theirs), f"{GOALS[work]:.2f}"])
    return found


def _ratio(ours: Latency, theirs: Latency) -> str:
    """Our time over theirs; its interval, wider than 95 %, is that of both medians at once."""
    spans = [(row.p50_low_ms or row.p50_ms, row.p50_high_ms or row.p50_ms) for row in (ours, theirs)]
    low, high = spans[0][0] / spans[1][1], spans[0][1] / spans[1][0]
    return f"{ours.p50_ms / theirs.p50_ms:.2f} [{low:.2f}, {high:.2f}]"


def alike(rows: Sequence[Latency], work: str) -> list[Latency]:
    """The rows of a work in which each engine had the model in its own form and its whole vocabulary."""
    return [row for row in rows if row.work == work and row.model != OWN_FILE and not row.model.endswith(SHORTLIST)]


def _time(rows: Sequence[Latency], work: str, most: float) -> list[str]:
    """One row of the table; nothing where no other engine ran."""
    found = [row for row in alike(rows, work) if row.precision == "int8"]
    ours = next((row for row in found if row.runtime == "onnxruntime" and row.speedup is None), None)
    others = [row for row in found if row.runtime in PEERS and row.speedup is not None]
    if ours is None or not others:
        return []
    best = min(others, key=lambda row: row.p50_ms)
    ratio = f"{best.speedup:.2f} [{best.speedup_low:.2f}, {best.speedup_high:.2f}]"
    return [work, f"{ms(ours.p50_ms)} ms", f"{best.runtime} {ms(best.p50_ms)} ms", ratio, f"{most:.2f}"]


def _own_file(rows: Sequence[Latency]) -> list[list[str]]:
    """Our static file in OpenVINO, beside what OpenVINO's own quantizer makes."""
    made = {row.work: row for row in rows if row.runtime == "openvino" and row.model != OWN_FILE}
    pairs = [(row, made[row.work]) for row in rows if row.model == OWN_FILE and row.work in made and row.work in GOALS]
    return [
        [
            f"{ours.work}, our static file in OpenVINO", f"{ms(ours.p50_ms)} ms", f"openvino {ms(theirs.p50_ms)} ms",
            _ratio(ours, theirs), f"{OWN_FILE_GOAL:.2f}",
        ]
        for ours, theirs in pairs
    ]  # fmt: skip


def _bytes(rows: Sequence[Size]) -> list[list[str]]:
    """The weights of the translation models."""
    found = []
    for shape in SHAPES:
        sizes = {row.runtime: row.weights_bytes for row in rows if row.model == shape.name and row.precision == "int8"}
        ours, theirs = sizes.get("onnxruntime"), sizes.get("ctranslate2")
        if ours and theirs:
            megabytes = [f"{value / 1e6:.1f} MB" for value in (ours, theirs)]
            found.append(
                [f"{shape.name}, weights", megabytes[0], f"ctranslate2 {megabytes[1]}", f"{ours / theirs:.2f}",
                 f"{BYTES_GOAL:.2f}"]
            )  # fmt: skip
    return found
