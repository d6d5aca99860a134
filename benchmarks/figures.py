"""Tables in Markdown, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from index.evaluation import Difference, Measurement


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, with an empty one behind it."""
    return [*(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)), ""]


def measured(figure: Measurement) -> str:
    """Write a mean with its 95 % interval."""
    return f"{figure.mean:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def compared(difference: Difference) -> str:
    """Write a difference with its 95 % interval and p-value."""
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}), p {difference.p_value:.4f}"


def share(part: int, whole: int) -> str:
    """Write a share as a percentage, nothing where there is nothing to share."""
    return f"{part / whole:.1%}" if whole else ""


def print_figures(lines: Sequence[str], file: Path | None) -> None:
    """Print lines that begin with a heading of the second level, and put them into a file.

    What stands in the file before its first heading of that level, such as what the data sets are, stays.
    """
    text = "\n".join(lines).rstrip() + "\n"
    print(text, end="")
    if file is not None:
        introduction, _, _ = (f"\n{file.read_text(encoding='utf-8')}" if file.exists() else "").partition("\n## ")
        file.write_text(f"{introduction.strip()}\n\n{text}".lstrip(), encoding="utf-8")
