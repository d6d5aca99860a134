"""Damage sound files of every format at random, and read them as a sync reads them.

    PYTHONPATH=benchmarks python -m soak.fuzz --seconds 600 --write benchmarks/results/fuzz.md
    PYTHONPATH=benchmarks python -m soak.fuzz --seconds 60 --seed 7 --format pdf

Each file is a sample with a few damages: bits turned, pieces cut out, doubled, taken from a file of another format,
opened without an end, or repeated many times; numbers made huge. In archives it is one of the files inside, so that
the damage is met behind the checksums, or the archive itself. The file is read in a process with bounds on its time
and memory. What comes out must be content that keeps its promises, or a refusal with a reason; a reader that stumbles
over a mistake of its own, or that outlives its time, is a failure.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import table
from machine import machine
from soak.samples import samples, unzipped, zipped

from index.errors import DocumentError
from index.readers.formats import check_content
from index.readers.limits import Limits
from index.readers.worker import ReaderProcess, Reading

LIMITS = Limits(seconds=20, memory_bytes=1_000_000_000)
SLACK_S = 5.0  # to start and to end a process, beyond the time that a file has
MAX_BYTES = 300_000  # of a damaged file; larger ones would only take longer
OUTCOMES = ("read", "rejected", "killed by limit", "failed")

_HUGE = (b"99999999999999999999", b"-1", b"4294967296", b"1e999", b"0", b"0x" + b"f" * 5_000)
_TRICKS = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u202e\u2066\u0085\u2028".encode(),
    b"\\ud800",
    b"&#xd800;&#0;&x;",
    b"\x1b[2J",
    b"\r",
    b"../../etc/passwd",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"%s%n",
    b"${x}",
    b"\n---\n",
)
_PIECE = re.compile(rb"<[^<>]{1,40}>|[\[({\"'`*=|#>:\\+-]|\w{1,12}|\s")
_NUMBER = re.compile(rb"\d+")
_LIMIT = re.compile(r"took longer than|of memory to read")
_OWN_MISTAKE = re.compile(r"cannot be read: \w+: |brought its reader down")


@dataclass(frozen=True)
class Damage:
    """One damage to a file.

    Attributes:
        kind: a key of `DAMAGES`.
        place: where, as a share of the length.
        amount: how much, from 0 to 1.
        choice: of whatever there is to choose from.
    """

    kind: str
    place: float
    amount: float
    choice: int


def _turn_bits(data: bytes, damage: Damage) -> bytes:
    changed = bytearray(data)
    step = 1 + len(data) // (1 + int(damage.amount * 8))
    for place in range(int(damage.place * step), len(data), step):
        changed[place] ^= 1 << damage.choice % 8
    return bytes(changed)


def _cut_off(data: bytes, damage: Damage) -> bytes:
    return data[: int(damage.place * len(data))]


def _cut_out(data: bytes, damage: Damage) -> bytes:
    start = int(damage.place * len(data))
    return data[:start] + data[start + 1 + int(damage.amount * 60) :]


def _double(data: bytes, damage: Damage) -> bytes:
    start = int(damage.place * len(data))
    end = start + int(damage.amount * len(data))
    return data[:end] + data[start:end] + data[end:]


def _splice(data: bytes, damage: Damage) -> bytes:
    others = list(samples().values())
    other = others[damage.choice % len(others)]
    return data[: int(damage.place * len(data))] + other[int(damage.amount * len(other)) :]


def _repeat(data: bytes, damage: Damage) -> bytes:
    """Repeat a piece of syntax: what opens something is opened without an end."""
    pieces = list(_PIECE.finditer(data))
    if not pieces:
        return data
    piece = pieces[int(damage.place * (len(pieces) - 1))]
    times = int(10 ** (damage.amount * 4.3))
    return data[: piece.end()] + (piece[0] * times)[: MAX_BYTES - len(data)] + data[piece.end() :]


def _enlarge(data: bytes, damage: Damage) -> bytes:
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    number = numbers[int(damage.place * (len(numbers) - 1))]
    return data[: number.start()] + _HUGE[damage.choice % len(_HUGE)] + data[number.end() :]


def _insert(data: bytes, damage: Damage) -> bytes:
    place = int(damage.place * len(data))
    return data[:place] + _TRICKS[damage.choice % len(_TRICKS)] + data[place:]


DAMAGES = {
    "turn bits": _turn_bits,
    "cut off": _cut_off,
    "cut out": _cut_out,
    "double": _double,
    "splice": _splice,
    "repeat": _repeat,
    "enlarge": _enlarge,
    "insert": _insert,
}


def damaged(name: str, damages: Sequence[Damage], *, inside: int | None) -> bytes:
    """Return a sample with damages.

    Args:
        name: of the sample.
        damages: one after the other.
        inside: which file of an archive to damage; None for the archive itself, without a meaning for other samples.
    """
    data = samples()[name]
    if inside is None or not data.startswith(b"PK"):
        return _with(data, damages)
    files = unzipped(data)
    chosen = sorted(files, key=lambda each: (not each.endswith((".xml", ".opf", ".xhtml")), each))
    entry = chosen[inside % len(chosen)]
    return zipped({**files, entry: _with(files[entry], damages)})


def _with(data: bytes, damages: Sequence[Damage]) -> bytes:
    for damage in damages:
        data = DAMAGES[damage.kind](data, damage)[:MAX_BYTES]
    return data


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        kind: one of `OUTCOMES`.
        reason: of a refusal or failure; empty for a file that was read.
    """

    kind: str
    reason: str = ""


class Fuzzer:
    """Reads damaged files in a process; for use as a context manager.

    Args:
        folder: empty, for the files.
        limits: on each of them.
    """

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._reader = ReaderProcess(limits)
        self._path = folder / "damaged"

    def __enter__(self) -> Fuzzer:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def outcome(self, name: str, data: bytes) -> Outcome:
        """Read a file that is called so, and tell what became of it."""
        self._path.write_bytes(data)
        begun = time.monotonic()
        try:
            found = self._outcome(name)
        except Exception as exc:  # any other than the one that is caught there is what this looks for
            return Outcome("failed", f"{type(exc).__name__}: {exc}")
        if time.monotonic() - begun > self._limits.seconds + SLACK_S:
            return Outcome("failed", f"took {time.monotonic() - begun:.0f} s: {found.reason}")
        return found

    def _outcome(self, name: str) -> Outcome:
        try:
            reading = self._reader.read(self._path, name)
        except DocumentError as exc:
            return _refusal(str(exc))
        _check(reading)
        return Outcome("read")


def _refusal(reason: str) -> Outcome:
    if not reason or _OWN_MISTAKE.search(reason):
        return Outcome("failed", reason)
    return Outcome("killed by limit" if _LIMIT.search(reason) else "rejected", reason)


def _check(reading: Reading) -> None:
    check_content(reading.content)
    for value in (reading.content.title or "", reading.content.text, repr(dict(reading.content.metadata))):
        value.encode()


@dataclass
class Tally:
    """What became of the files of one format.

    Attributes:
        outcomes: how many had which.
        slowest_s: what the slowest took.
        problems: damages that made a reader fail, with the reason.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def drawn(chance: random.Random) -> tuple[list[Damage], int | None]:
    """Draw damages, and in which file of an archive they are."""
    count = chance.choice((1, 1, 1, 2, 3, 5))
    kinds = list(DAMAGES)
    damages = [
        Damage(chance.choice(kinds), chance.random(), chance.random(), chance.randrange(1_000)) for _ in range(count)
    ]
    return damages, None if chance.random() < 0.15 else chance.randrange(100)


def fuzz(names: Sequence[str], *, seconds: float, seed: int, limits: Limits = LIMITS) -> dict[str, Tally]:
    """Read damaged samples in turn until the time is up; the same seed makes the same files."""
    tallies = {name: Tally() for name in names}
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, Fuzzer(Path(scratch), limits) as fuzzer:
        while time.monotonic() < end:
            for name in names:
                damages, inside = drawn(chance)
                begun = time.monotonic()
                outcome = fuzzer.outcome(name, damaged(name, damages, inside=inside))
                tally = tallies[name]
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - begun)
                tally.outcomes[outcome.kind] += 1
                if outcome.kind == "failed":
                    tally.problems.append(f"{outcome.reason[:200]} ({damages}, inside={inside})")
    return tallies


def report(tallies: dict[str, Tally], seconds: float, seed: int) -> Iterator[str]:
    """Write the tallies as Markdown."""
    executions = sum(tally.outcomes.total() for tally in tallies.values())
    yield "# Damaged files\n"
    yield (
        f"`PYTHONPATH=benchmarks python -m soak.fuzz --seconds {seconds:.0f} --seed {seed}`. {machine()}.\n"
        "What is done to a file, and what must come of it, stands at the top of [fuzz.py](../soak/fuzz.py).\n"
    )
    rows = [
        [name.partition(".")[2], *(f"{tally.outcomes[kind]:,}" for kind in OUTCOMES), f"{tally.slowest_s:.1f}"]
        for name, tally in tallies.items()
    ]
    yield from table(["format", *OUTCOMES, "slowest (s)"], rows)
    failed = sum(len(tally.problems) for tally in tallies.values())
    yield f"{executions:,} executions, {failed:,} failed."
    for name, tally in tallies.items():
        for problem in tally.problems[:10]:
            yield f"\n- {name}: `{problem}`"


def main() -> None:
    """Read the command line, damage, and print what became of it; exit code 1 when a reader failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--format", action="append", help="only samples with this suffix, such as pdf")
    parser.add_argument("--write", type=Path, help="file to keep the table in")
    arguments = parser.parse_args()
    names = [name for name in samples() if not arguments.format or name.partition(".")[2] in arguments.format]
    tallies = fuzz(names, seconds=arguments.seconds, seed=arguments.seed)
    lines = "\n".join(report(tallies, arguments.seconds, arguments.seed))
    print(lines)
    if arguments.write is not None:
        arguments.write.write_text(f"{lines}\n", encoding="utf-8")
    sys.exit(any(tally.problems for tally in tallies.values()))


if __name__ == "__main__":
    main()
