"""Plots as SVG, on scales of powers of ten: services, a row for each and a dot for each number of clients; curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, TOP, BOTTOM = 1_040, 30, 96, 34
NAMES = 290  # pixels for the names at the left
GAP = 44  # between panels, and at the right
COLOURS = ("#9ecae1", "#4292c6", "#2171b5", "#08306b")  # the more clients, the darker
INK, GRID = "#24292f", "#d0d7de"
CURVES_HEIGHT, LINE = 460, 20
CURVE_COLOURS = ("#08519c", "#6baed6", "#a63603", "#fd8d3c", "#238b45", "#74c476")  # full and pale in turn


@dataclass(frozen=True)
class Panel:
    """A part of the plot.

    Attributes:
        title: with the unit.
        values: service -> number of clients -> value above 0.
    """

    title: str
    values: Mapping[str, Mapping[int, float]]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Draw panels beside each other, with the services of the first in its order."""
    names = list(panels[0].values)
    clients = sorted({count for panel in panels for counts in panel.values.values() for count in counts})
    colours = {count: COLOURS[place * len(COLOURS) // len(clients)] for place, count in enumerate(clients)}
    height = TOP + ROW * len(names) + BOTTOM
    width = (WIDTH - NAMES - GAP * len(panels)) / len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(16, 26, title, size=16, weight="bold"),
        *_legend(colours),
        *(_text(NAMES - 12, _middle(row), name, anchor="end") for row, name in enumerate(names)),
    ]
    for place, panel in enumerate(panels):
        lines += _panel(panel, names, colours, left=NAMES + place * (width + GAP), width=width)
    return "\n".join([*lines, "</svg>"]) + "\n"


def decades(values: Sequence[float]) -> range:
    """Return the powers of ten from the one below the least value to the one above the greatest."""
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return range(lowest, max(highest, lowest + 1) + 1)


def _panel(
    panel: Panel, names: Sequence[str], colours: Mapping[int, str], *, left: float, width: float
) -> Iterator[str]:
    powers = decades([value for counts in panel.values.values() for value in counts.values()])

    def across(value: float) -> float:
        return left + width * (math.log10(value) - powers[0]) / (powers[-1] - powers[0])

    yield _text(left, TOP - 28, panel.title, weight="bold")
    end = TOP + ROW * len(names)
    for power in powers:
        place = across(10**power)
        yield f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{TOP - 8}" y2="{end}" stroke="{GRID}"/>'
        yield _text(place, end + 20, f"{10.0**power:,g}", anchor="middle", size=12)
    for row, name in enumerate(names):
        places = {count: across(value) for count, value in panel.values[name].items()}
        span = f'x1="{min(places.values()):.1f}" x2="{max(places.values()):.1f}"'
        yield f'<line {span} y1="{_middle(row) - 4}" y2="{_middle(row) - 4}" stroke="{GRID}" stroke-width="3"/>'
        for count, place in places.items():
            what = f"<title>{escape(name)}, {count} clients: {panel.values[name][count]:,.4g}</title>"
            yield f'<circle cx="{place:.1f}" cy="{_middle(row) - 4}" r="6" fill="{colours[count]}">{what}</circle>'


def _legend(colours: Mapping[int, str]) -> Iterator[str]:
    yield _text(16, 54, "Clients:")
    for place, (count, colour) in enumerate(colours.items()):
        left = 84 + 50 * place
        yield f'<circle cx="{left}" cy="50" r="6" fill="{colour}"/>'
        yield _text(left + 10, 54, str(count))


def _middle(row: int) -> float:
    return TOP + ROW * row + 19


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


@dataclass(frozen=True)
class Curves:
    """A part of a plot of curves.

    Attributes:
        title: with the unit.
        values: name of a curve -> place on the axis across -> value above 0.
    """

    title: str
    values: Mapping[str, Mapping[int, float]]


def curves(title: str, across: str, panels: Sequence[Curves]) -> str:
    """Draw panels of curves beside each other, on scales of powers of ten both ways.

    Args:
        title: of the plot.
        across: what the axis across is.
        panels: with at least one value each.
    """
    width = (WIDTH - GAP * (len(panels) + 1)) / len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {CURVES_HEIGHT}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{CURVES_HEIGHT}" fill="white"/>',
        _text(16, 26, title, size=16, weight="bold"),
        _text(WIDTH - GAP, 26, f"across: {across}", anchor="end"),
    ]
    for place, panel in enumerate(panels):
        lines += _curves_panel(panel, left=GAP + place * (width + GAP), width=width)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _curves_panel(panel: Curves, *, left: float, width: float) -> Iterator[str]:
    top, end = 80.0, CURVES_HEIGHT - 30.0 - LINE * len(panel.values)
    columns = decades([place for points in panel.values.values() for place in points])
    rows = decades([value for points in panel.values.values() for value in points.values()])

    def x(place: float) -> float:
        return left + width * (math.log10(place) - columns[0]) / (columns[-1] - columns[0])

    def y(value: float) -> float:
        return end - (end - top) * (math.log10(value) - rows[0]) / (rows[-1] - rows[0])

    yield _text(left, top - 24, panel.title, weight="bold")
    for power in columns:
        yield f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{top}" y2="{end}" stroke="{GRID}"/>'
        yield _text(x(10**power), end + 16, f"{10**power:,}", anchor="middle", size=11)
    for power in rows:
        height = y(10.0**power)
        yield f'<line x1="{left}" x2="{left + width:.1f}" y1="{height:.1f}" y2="{height:.1f}" stroke="{GRID}"/>'
        yield _text(left - 4, height + 4, f"{10.0**power:,g}", anchor="end", size=11)
    for number, (name, points) in enumerate(panel.values.items()):
        colour = CURVE_COLOURS[number % len(CURVE_COLOURS)]
        drawn = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in sorted(points.items()))
        yield f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for place, value in points.items():
            what = f"<title>{escape(name)}, {place:,}: {value:,.4g}</title>"
            yield f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="4" fill="{colour}">{what}</circle>'
        height = end + 36 + LINE * number
        yield f'<circle cx="{left + 6:.1f}" cy="{height - 4:.1f}" r="5" fill="{colour}"/>'
        yield _text(left + 18, height, name)
