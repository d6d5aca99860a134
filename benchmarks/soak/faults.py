"""Let every system call that writes fail in turn, and kill the process before each, and check what is left.

    PYTHONPATH=benchmarks:tests python -m soak.faults --write benchmarks/results/faults.md
    PYTHONPATH=benchmarks:tests python -m soak.faults --work index --kind kill --every 10       a sample

Each run begins in a copy of the same home, and one call of one piece of work fails: the disk is full, broken, or a
signal comes in between; or the process is killed there. Afterwards the older or the newer state must be there, whole:
every file is checked, questions are answered, and every citation is verified. What was said to be done must be done,
and what was refused must have changed nothing. Then the work is done once more, without a fault, and has to succeed
and to leave exactly the files that it leaves when nothing ever happened. Killing a process loses nothing that it
wrote; so that a power cut loses nothing either, each file must be flushed before it is renamed to where it is read.

Needs strace and the right to trace. The model is left out: embeddings are made up from digests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from figures import table
from machine import machine
from soak.injection import KINDS, Call, Ended, Run, calls_below, missing, struck, undisturbed, unflushed, watched
from soak.works import NEW, OLD, WORKS, Work, left_in

UNCONFIRMED = "but the disk did not confirm it"  # what an error says when a rename was done and not flushed


@dataclass
class Tally:
    """What became of the faults of one kind in one piece of work.

    Attributes:
        calls: how many the work makes that write.
        injected: runs in which the fault struck one of them.
        ended: of these, how many ended how.
        problems: what should not have happened, with the call.
    """

    work: str
    kind: str
    calls: int
    injected: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        """How many did no harm."""
        return self.injected - len(self.problems)

    def as_json(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({**vars(self), "survived": self.survived})


class Trial:
    """Everything that is done to one piece of work.

    Args:
        work: to disturb.
        scratch: an empty folder.
    """

    def __init__(self, work: Work, scratch: Path) -> None:
        self._work = work
        self._template, self._folder = scratch / "template", scratch / "run"
        self._template.mkdir()
        _must_succeed(undisturbed(lambda: work.prepare(self._template)))
        self._renew()
        run = watched(lambda: work.do(self._folder))
        _must_succeed(run)
        self.calls = calls_below(self._folder, run.trace)
        assert not (late := unflushed(self.calls)), f"renamed before it was flushed: {late}"
        assert work.look(self._folder) == NEW
        self._left = left_in(self._folder)

    def strike(self, call: Call, kind: str) -> tuple[Run, str | None]:
        """Let a call fail; return how the run ended and what should not be so."""
        self._renew()
        run = struck(lambda: self._work.do(self._folder), call, kind)
        try:
            return run, self._problem(run)
        except Exception as exc:  # whatever is wrong with what is left is what this is for
            return run, f"{type(exc).__name__}: {exc}"

    def _problem(self, run: Run) -> str | None:
        found = self._work.look(self._folder)
        if run.ended is Ended.FAILED:
            return f"ended with another error than ours: {_last_line(run.said)}"
        if run.ended is Ended.DONE and found == OLD:
            return "said to be done, and is not"
        if run.ended is Ended.REFUSED and found == NEW and UNCONFIRMED not in run.said:
            return f"refused, and done: {_last_line(run.said)}"
        again = undisturbed(lambda: (self._work.again or self._work.do)(self._folder))
        if again.ended is not Ended.DONE:
            return f"could not be done afterwards: {_last_line(again.said)}"
        if self._work.look(self._folder) != NEW:
            return "done afterwards, without effect"
        left = Counter(left_in(self._folder)), Counter(self._left)
        if left[0] != left[1]:
            return f"left over: {sorted(left[0] - left[1])}, missing: {sorted(left[1] - left[0])}"
        return None

    def _renew(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder)


def disturb(work: Work, kinds: Sequence[str], *, every: int) -> Iterator[Tally]:
    """Inject every fault into a piece of work.

    Args:
        work: to disturb.
        kinds: of faults.
        every: how many calls one is taken of, in turn for each kind so that together they cover more.
    """
    work.load()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        trial = Trial(work, Path(scratch))
        for offset, kind in enumerate(kinds):
            tally = Tally(work.name, kind, len(trial.calls))
            for call in trial.calls[offset * every // len(kinds) :: every]:
                run, problem = trial.strike(call, kind)
                if run.is_injected:
                    tally.injected += 1
                    tally.ended[run.ended.value] += 1
                if problem is not None:
                    tally.problems.append(f"{call.line.replace(scratch, '')}: {problem}")
            yield tally


def _must_succeed(run: Run) -> None:
    if run.ended is not Ended.DONE:
        raise RuntimeError(f"without a fault: {run.said}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]


def report(tallies: Sequence[Tally], seconds: float) -> Iterator[str]:
    """Write the tallies as Markdown."""
    yield "# Faults injected into everything that writes\n"
    yield (
        f"`PYTHONPATH=benchmarks:tests python -m soak.faults`. {machine()}; {seconds / 60:.0f} minutes.\n"
        "What is done in each run, and checked after it, stands at the top of [faults.py](../soak/faults.py). Calls\n"
        "are those that write; a fault has no effect when the work succeeds all the same, and is refused when it\n"
        "ends with an error that says what to do.\n"
    )
    header = ["work", "kind", "calls", "faults injected", "no effect", "refused", "killed", "survived"]
    yield from table(header, [_row(tally) for tally in tallies])
    injected, problems = sum(tally.injected for tally in tallies), sum(len(tally.problems) for tally in tallies)
    yield f"{injected - problems:,} of {injected:,} survived."
    for tally in tallies:
        for problem in tally.problems:
            yield f"\n- {tally.work}, {tally.kind}: `{problem}`"


def _row(tally: Tally) -> list[str]:
    ended = [tally.ended[each.value] for each in (Ended.DONE, Ended.REFUSED, Ended.KILLED)]
    counts = (tally.calls, tally.injected, *ended, tally.survived)
    return [tally.work, tally.kind, *(f"{count:,}" for count in counts)]


def main() -> None:
    """Read the command line, inject, and print what became of it; exit code 1 when something did not survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="inject into one of so many calls")
    parser.add_argument("--work", action="append", choices=[work.name for work in WORKS], help="only this work")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind of fault")
    parser.add_argument("--json", action="store_true", help="print JSON lines and no table")
    parser.add_argument("--write", type=Path, help="file to keep the table in")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(f"No faults can be injected: {reason}.")
    begun = time.perf_counter()
    chosen = [work for work in WORKS if arguments.work is None or work.name in arguments.work]
    kinds = arguments.kind or list(KINDS)
    tallies = []
    for tally in (tally for work in chosen for tally in disturb(work, kinds, every=arguments.every)):
        tallies.append(tally)
        print(tally.as_json(), file=sys.stdout if arguments.json else sys.stderr, flush=True)
    lines = "\n".join(report(tallies, time.perf_counter() - begun))
    if not arguments.json:
        print(lines)
    if arguments.write is not None:
        arguments.write.write_text(f"{lines}\n", encoding="utf-8")
    sys.exit(any(tally.problems for tally in tallies))


if __name__ == "__main__":
    main()
