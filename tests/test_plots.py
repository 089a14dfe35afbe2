"""The picture: where things go, that labels cover nothing, and two files that need nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_markdown import example

from bench.compare import Interval
from bench.layout import BOTTOM, CHARACTER, CROWDED, HEIGHT, LARGEST, LEFT, LINE, RIGHT, TOP, Axis, Mark, arrange
from bench.page import page
from bench.pareto import Point, frontier, points
from bench.plots import write_png
from distill.errors import DataError
from distill.report import Report

pytest.importorskip("matplotlib")
POINT = points(example())[0]


def at(name: str, latency: float, quality: float, size: int = 10) -> Point:
    """A point with narrow intervals."""
    spans = Interval(latency, 0.95 * latency, 1.05 * latency), Interval(quality, quality - 0.01, quality + 0.01)
    return replace(POINT, name=name, speed=spans[0], quality=spans[1], bytes=size)


def test_points_have_all_three_numbers() -> None:
    report = example()
    assert [point.name for point in points(report)] == ["teacher torch fp32", "bundle onnxruntime int8 static"]
    assert points(replace(report, size=report.size[:1])) == [POINT]
    assert points(replace(report, quality=())) == []
    nan = replace(report.quality[0], value=float("nan"))
    assert [point.name for point in points(replace(report, quality=(nan, report.quality[1])))] == [
        "bundle onnxruntime int8 static"
    ]


def test_frontier_by_hand() -> None:
    a, b, c, d = at("a", 1, 0.7), at("b", 2, 0.9), at("c", 3, 0.8), at("d", 4, 0.95)
    assert frontier([d, c, b, a]) == [a, b, d]
    assert frontier([at("slow", 2, 0.9), at("quick", 1, 0.9)]) == [at("quick", 1, 0.9)]
    assert frontier([]) == []


def test_axes_by_hand() -> None:
    even = Axis(0.8, 0.9, 500, 100, False)
    assert even.place(0.8) == 500
    assert even.place(0.85) == pytest.approx(300)
    assert even.ticks() == pytest.approx([0.8, 0.82, 0.84, 0.86, 0.88, 0.9])
    powers = Axis(1, 100, 0, 200, True)
    assert powers.place(10) == pytest.approx(100)
    assert powers.ticks() == [1, 2, 5, 10, 20, 50, 100]


def test_area_goes_with_bytes() -> None:
    large, small = arrange([at("small", 1, 0.8, 25), at("large", 9, 0.9, 100)]).marks
    assert (large.radius, small.radius) == (LARGEST, LARGEST / 2)


def test_labels_cover_neither_bubbles_nor_labels() -> None:
    models = [at("teacher torch fp32", 20, 0.861, 90), at("teacher onnxruntime fp32", 17, 0.861, 90)]
    models += [at("student torch fp32", 11, 0.842, 70), at("student onnxruntime fp32", 9, 0.842, 70)]
    marks = arrange([*models, at("bundle onnxruntime int8 dynamic", 4, 0.838, 18)]).marks
    labels = [_label_box(mark) for mark in marks]
    bubbles = [(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in marks]
    assert not any(_meet(one, other) for one, other in combinations(labels, 2))
    assert not any(_meet(label, bubble) for label in labels for bubble in bubbles)


def _label_box(mark: Mark) -> tuple[float, ...]:
    """The room of a mark's two lines."""
    half = CHARACTER * max(map(len, mark.label)) / 2
    below = LINE * (len(mark.label) - 0.5)
    return mark.label_x - half, mark.label_y - LINE / 2, mark.label_x + half, mark.label_y + below


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_many_models_have_numbers_and_a_legend(tmp_path: Path) -> None:
    few = [at(f"a model with a long name {number}", 1 + number, 0.8, 100) for number in range(CROWDED - 1)]
    assert arrange(few).legend == () and arrange(few).height == HEIGHT
    many = arrange([*few, at("the last of all", 1.1, 0.81, 100)])
    assert many.legend[-1] == f"{CROWDED}  the last of all, 0.0 MB" and len(many.legend) == CROWDED
    assert {mark.label for mark in many.marks} == {(str(number),) for number in range(1, CROWDED + 1)}
    assert many.marks[0].radius == LARGEST / 2 and many.height == HEIGHT + (CROWDED + 1) * LINE
    report = example()
    copies = {
        name: tuple(replace(row, model=f"{row.model} {copy}") for row in getattr(report, name) for copy in range(4))
        for name in ("quality", "latency", "size")
    }
    crowd = replace(report, **copies)
    (svg,) = re.findall(r"<svg.*?</svg>", page(crowd), re.DOTALL)
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert all(line in texts for line in arrange(points(crowd)).legend) and len(points(crowd)) == 8
    write_png(crowd, tmp_path / "crowd.png")


spans = st.tuples(st.floats(0.01, 1e4), st.floats(0, 1), st.integers(0, 2**33))


@settings(deadline=None)
@given(st.lists(spans, min_size=1, max_size=7))
def test_everything_lies_on_the_picture(values: list[tuple[float, float, int]]) -> None:
    layout = arrange([at(f"model {i}", *value) for i, value in enumerate(values)])
    for mark in layout.marks:
        assert LEFT <= mark.x <= RIGHT
        assert TOP <= mark.y <= BOTTOM
        assert 0 < mark.radius <= LARGEST
    assert layout.y.ticks()


def test_a_model_that_is_always_right() -> None:
    sure = replace(POINT, quality=Interval(1, 1, 1))
    assert arrange([sure]).marks[0].y == pytest.approx((TOP + BOTTOM) / 2)


def test_the_png_is_one(tmp_path: Path) -> None:
    write_png(example(), tmp_path / "pareto.png")
    data = (tmp_path / "pareto.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000
    write_png(replace(example(), name="$x_1$ & <b>"), tmp_path / "odd.png")


class _Reader(HTMLParser):
    """Counts tags and keeps their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_needs_nothing_else() -> None:
    text = page(example())
    reader = _Reader()
    reader.feed(text)
    assert "script" not in reader.tags
    assert not {"src", "href", "onclick", "onload"} & {name for name, _ in reader.attributes}
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_shows_and_tells_every_model() -> None:
    text = page(example())
    (svg,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    root = ElementTree.fromstring(svg)
    titles = [title.text for title in root.iter("title")]
    assert len(titles) == 2
    bundle = next(title for title in titles if title and title.startswith("bundle"))
    assert "accuracy 0.8420 [0.8160, 0.8650]" in bundle
    assert "4.00 [3.90, 4.10] ms" in bundle
    assert "17.6 MB" in bundle
    assert "5.00 times the speed of teacher torch fp32" in bundle
    table = text[text.index("<table>") :]
    assert table.count("<tr>") == 3
    for cell in ("0.8420 [0.8160, 0.8650]", "worse", "5.00 [4.80, 5.20]", "17.6", "122.4", "<li>a note</li>"):
        assert cell in table


def test_names_cannot_break_out_of_the_page() -> None:
    report = example()
    evil = "<script>alert(1)</script>"
    rows = {
        "quality": tuple(replace(row, model=evil) for row in report.quality[:1]),
        "latency": tuple(replace(row, model=evil) for row in report.latency[:1]),
        "size": tuple(replace(row, model=evil) for row in report.size[:1]),
    }
    text = page(replace(report, name=evil, notes=(evil,), environment={"cpu": evil}, **rows))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none"):
        page(Report("empty"))
    with pytest.raises(DataError, match="none"):
        write_png(Report("empty"), tmp_path / "x.png")
