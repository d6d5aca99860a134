"""The command from end to end: its answers are those of every other way, and nothing stops it for good."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handbook import Handbook
from live import serving
from sources_in_memory import MemorySource
from tiny_models import write_tiny_model
from waiting import until

from index.answers import Question, answer_questions
from index.build import BuildSettings, sync
from index.embeddings import Encoder, load_encoder
from index.generations import Home
from service.cli import main
from service.schemas.answers import AnswerJson

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from service.cli import main; main()", "batch"]
QUESTIONS = [
    "How do I reset the router?",
    "What does the red light mean?",
    "crumb tray of the toaster",
    "Who won the world cup in 1998?",
    "東京タワー",
    " ".join(["How often should I descale the kettle, and with what should I fill it before I boil it?"] * 4),
]
TEXTS = {
    "kettle.md": "Rinse the kettle three times before you make tea.\n",
    "router.md": "The red light of the router means that there is no power.\n",
}
KILLS = int(os.environ.get("KILLS", "4"))  # more of them, unattended: KILLS=300 pytest tests/test_batch.py
LIMIT_S = 120.0


@dataclass(frozen=True)
class Whence:
    """The command of a home, in processes of its own."""

    home: Path
    cache: Path
    model: str

    def start(self, *arguments: str | Path, **given: Any) -> subprocess.Popen[bytes]:
        """Start it."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")}
        settings = {"WHENCE_HOME": str(self.home), "WHENCE_CACHE": str(self.cache), "WHENCE_MODEL": self.model}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=ROOT, env={**bare, **settings}, **{**streams, **given}
        )

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        """Run it to its end."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(stdin, timeout=LIMIT_S)
        assert b"Traceback" not in err
        return Result(process.returncode, out, err.decode())


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: bytes
    err: str


@pytest.fixture(scope="module")
def handbook_home(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Home:
    """The handbook, with the model that everybody uses."""
    home = Home(tmp_path_factory.mktemp("batch") / "home")
    sync(home, [Handbook()], encoder)
    return home


@pytest.fixture
def whence(handbook_home: Home, cache_folder: Path, encoder: Encoder) -> Whence:
    return Whence(handbook_home.path, cache_folder, encoder.identity.name)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Whence:
    """Two short documents, with a model that loads and answers at once."""
    folder = tmp_path_factory.mktemp("quick")
    model = str(write_tiny_model(folder))
    sync(Home(folder / "home"), [MemorySource(TEXTS)], load_encoder(model, cache_folder=cache_folder / "models"))
    return Whence(folder / "home", cache_folder, model)


def write_questions(path: Path, count: int) -> Path:
    """Write questions of which some come again, some are empty, and some lines are no JSON."""
    chosen = random.Random(7)
    with path.open("w") as stream:
        for number in range(count):
            question = f"What does light {chosen.randrange(count)} of the {chosen.choice(['router', 'kettle'])} mean?"
            row = {"id": number, "question": "" if number % 97 == 5 else question}
            stream.write(("{" if number % 101 == 7 else json.dumps(row)) + "\n")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest_of(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.with_name(f"{path.name}.manifest.json").read_text())
    return manifest


def test_the_answers_are_those_of_the_library_and_of_the_service_to_the_byte(
    whence: Whence, handbook_home: Home, encoder: Encoder, tmp_path: Path
) -> None:
    questions = [
        *QUESTIONS,
        *(f"What does {colour} light {n} mean?" for colour in ("red", "blue") for n in range(20)),
    ]
    asked, answers = tmp_path / "questions.txt", tmp_path / "answers.jsonl"
    asked.write_text("\n".join(questions))
    result = whence.run(asked, answers, "--top-k", "3", "--workers", "2")
    assert (result.code, result.err[:8]) == (0, "46 rows:")
    with closing(handbook_home.open_current()) as generation:
        alone = [answer_questions(generation, encoder, [Question(text, top_k=3)])[0] for text in questions]
    expected = [AnswerJson.of(answer).model_dump_json(exclude={"took_ms"}) for answer in alone]
    assert answers.read_text().splitlines() == expected
    with serving(handbook_home.path, whence.cache) as client:
        body = {"questions": [{"question": text, "top_k": 3} for text in questions]}
        served = client.post("/v1/ask/batch", json=body)
    assert served.status_code == httpx.codes.OK
    for answer in served.json()["answers"]:
        answer.pop("took_ms")
        assert answer == json.loads(expected.pop(0))


def test_a_row_that_fails_has_its_line_and_the_exit_code_says_so(quick: Whence, tmp_path: Path) -> None:
    asked, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    asked.write_bytes(b'{"id": 1, "question": "Red light?"}\n\n{"id": 3, "question": ""}\n{\n"' + b"x" * 10_000_000)
    result = quick.run(asked, answers)
    assert result.code == 1
    assert result.err.splitlines() == [
        "Line 3: The question is empty. Ask something.",
        "Line 4: The line is not JSON: Expecting property name enclosed in double quotes at character 3.",
        "Line 5: The line has more than 1,000,000 bytes. Shorten it.",
        "4 rows: 1 answered, 0 not found, 3 failed",
        "whence: 3 of 4 rows have no answer.",
    ]
    assert [line.get("line") for line in lines_of(answers)] == [None, 3, 4, 5]
    assert manifest_of(answers)["counts"] == {"rows": 4, "answered": 1, "unanswered": 0, "failed": 3}
    again = quick.run(asked, answers)
    assert (again.code, again.err.splitlines()[0]) == (
        1,
        f"{answers} is there already, and whole. To make it anew: --restart",
    )


def test_the_first_row_that_fails_can_end_it_before_anything_is_answered(quick: Whence, tmp_path: Path) -> None:
    asked = write_questions(tmp_path / "q.jsonl", 20)
    result = quick.run(asked, tmp_path / "a.jsonl", "--fail-fast")
    assert (result.code, result.err) == (1, "whence: Line 6: The question is empty. Ask something.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_an_empty_file_gives_an_empty_result(quick: Whence, tmp_path: Path) -> None:
    (tmp_path / "q.csv").touch()
    for name, content in (("a.jsonl", b""), ("a.jsonl.gz", gzip.compress(b"", mtime=0))):
        result = quick.run(tmp_path / "q.csv", tmp_path / name)
        assert (result.code, result.err) == (0, "0 rows: 0 answered, 0 not found, 0 failed\n")
        assert (tmp_path / name).read_bytes() == content


def test_tables_go_in_and_out(quick: Whence, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("id;question;answer\n1;What does the red light mean?;no power\n2;Rinse?;\n")
    arguments = (tmp_path / "a.csv.gz", "--top-k", "1", "--fields", "id,input_answer,question,passages")
    assert quick.run(tmp_path / "q.csv", *arguments).code == 0
    with gzip.open(tmp_path / "a.csv.gz", "rt", newline="") as stream:
        records = list(csv.DictReader(stream))
    assert [list(record.values())[:3] for record in records] == [
        ["1", "no power", "What does the red light mean?"],
        ["2", "", "Rinse?"],
    ]
    assert list(records[0])[3:] == [
        *(f"passage_1_{name}" for name in ("text", "score", "document", "start", "end", "url")),
        "line",
        "error",
    ]
    pq.write_table(pa.table({"id": [1, 2], "text": ["What does the red light mean?", None]}), tmp_path / "q.parquet")
    assert quick.run(tmp_path / "q.parquet", tmp_path / "a.parquet", "--top-k", "1").code == 1
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["id"], row["passage_1_text"], row["line"]) for row in rows] == [
        (1, records[0]["passage_1_text"], None),
        (2, None, 2),
    ]


def test_standard_input_and_output_are_a_filter(quick: Whence) -> None:
    questions = gzip.compress(b'{"_id": "a", "text": "What does the red light mean?"}\n{"_id": "b", "text": ""}\n')
    result = quick.run("-", "-", "--json", stdin=questions)
    assert result.code == 1
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [(record["_id"], record.get("error")) for record in records] == [
        ("a", None),
        ("b", "The question is empty. Ask something."),
    ]
    manifest = json.loads(result.err.splitlines()[1])
    assert manifest["input"]["sha256"] == hashlib.sha256(questions).hexdigest()
    assert manifest["output"]["size"] == len(result.out)
    run = quick.run("-", "-", "--format", "trec", "--input-format", "lines", stdin=b"What does the red light mean?")
    assert run.out.startswith(b"1 Q0 ")


def test_a_table_from_standard_input_has_the_columns_of_the_first_rows(quick: Whence, tmp_path: Path) -> None:
    rows = [{"id": 1, "question": "Red light?"}] * 50 + [
        {"id": "x", "question": "Red?"},
        {"id": 3, "question": "Re?"},
    ]
    result = quick.run(
        "-",
        tmp_path / "a.csv",
        *("--top-k", "100", "--fields", "id,answered"),
        stdin="\n".join(map(json.dumps, rows)).encode(),
    )
    assert result.code == 1
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert (lines[:2], lines[-1]) == (["id,answered,line,error", "1,true,,"], "3,true,,")
    assert lines[51].startswith(",,51,\"The field 'id' is of another kind than in the first rows")
    manifest = manifest_of(tmp_path / "a.csv")
    assert manifest["input"]["size"] == len("\n".join(map(json.dumps, rows)))
    assert quick.run("-", tmp_path / "a.csv", stdin=b"").code == 1  # what is there stays


def test_when_the_reader_of_the_answers_leaves_the_command_ends(quick: Whence, tmp_path: Path) -> None:
    asked = write_questions(tmp_path / "q.jsonl", 500)
    with quick.start(asked, "-", "--top-k", "100") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=LIMIT_S) == 1
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("q.dat", "a.jsonl"), "does not tell its format"),
        (("q.jsonl", "a.dat"), "does not tell its format"),
        (("q.jsonl", "a.jsonl", "--format", "xml"), "'xml' is not a format"),
        (("q.jsonl", "a.jsonl", "--input-format", "trec"), "'trec' is not a format"),
        (("q.jsonl", "a.jsonl", "--encoding", "klingon"), "'klingon' is not an encoding"),
        (("q.jsonl", "a.jsonl", "--encoding", "base64"), "'base64' is not an encoding"),
        (("q.jsonl", "a.jsonl", "--top-k", "0"), "top_k is 0"),
        (("q.jsonl", "a.jsonl", "--filter", "x"), "is not FIELD=VALUE"),
        (("q.jsonl", "a.run", "--fields", "id"), "has no fields to choose from"),
        (("q.jsonl", "a.csv", "--id-field", "id"), "only a TREC run has query ids"),
        (("q.jsonl", "a.jsonl", "--for-spreadsheet"), "only CSV is for spreadsheets"),
        (("q.jsonl", "a.parquet.gz"), "Parquet is compressed by itself"),
        (("q.jsonl", "-", "--format", "parquet"), "Parquet cannot be written to a stream"),
        (("-", "a.jsonl", "--input-format", "parquet"), "Parquet cannot be read from a stream"),
        (("q.jsonl", "."), "does not tell its format"),
        (("q.jsonl", ".", "--format", "csv"), "is a folder"),
        (("q.jsonl", "q.jsonl"), "the answers would replace the questions"),
        (("q.jsonl", "a.jsonl", "--workers", "0"), "Input should be greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHENCE_HOME", str(tmp_path / "home"))
    (tmp_path / "q.jsonl").write_text('{"question": "Why?"}')
    monkeypatch.setattr(sys, "argv", ["whence", "batch", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    err = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert (ending.value.code, message in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_questions_or_an_index_that_are_missing_are_told(quick: Whence, tmp_path: Path) -> None:
    result = quick.run(tmp_path / "none.jsonl", tmp_path / "a.jsonl")
    assert (result.code, result.err) == (
        1,
        f"whence: {tmp_path}/none.jsonl cannot be read: No such file or directory. Check the path.\n",
    )
    elsewhere = Whence(tmp_path / "home", quick.cache, quick.model)
    result = elsewhere.run(tmp_path / "none.jsonl", tmp_path / "a.jsonl")
    assert (result.code, result.err[:16]) == (1, "whence: No index")
    (tmp_path / "q.jsonl").write_text('{"question": "Why?", "id": 1}')
    result = quick.run(tmp_path / "q.jsonl", tmp_path / "a.jsonl", "--fields", "id,answr")
    assert (result.code, result.err[:45]) == (1, "whence: There is no field 'answr' to keep. Na")
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


# Going on


def wait_for_parts(answers: Path, parts: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the journal has so many parts, or the command has ended."""
    journal = answers.with_name(f"{answers.name}.journal")

    def has_parts() -> bool:
        try:
            return process.poll() is not None or journal.read_bytes().count(b"\n") > parts
        except FileNotFoundError:
            return process.poll() is not None

    until(has_parts, seconds=LIMIT_S)


def rows_kept(answers: Path) -> int:
    """Return how many rows the journal says are kept."""
    _, *lines = answers.with_name(f"{answers.name}.journal").read_bytes().splitlines(keepends=True)
    return sum(json.loads(line)["counts"]["rows"] for line in lines if line.endswith(b"\n"))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_killed_at_any_moment_it_goes_on_and_the_result_is_the_same(quick: Whence, tmp_path: Path, name: str) -> None:
    asked = write_questions(tmp_path / "q.jsonl", 250 * KILLS)
    whole, broken = tmp_path / f"whole.{name}", tmp_path / f"broken.{name}"
    arguments = ("--top-k", "100", "--fields", "id,question,answered,confidence,answer")
    assert quick.run(asked, whole, *arguments).code == 1
    moments, rows = random.Random(len(name)), 0
    for number in range(KILLS // 2):
        with quick.start(asked, broken, *arguments, "--workers", str(1 + number % 2)) as process:
            wait_for_parts(broken, 1 + rows // 50 + moments.randrange(1, 3), process)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
        assert not broken.exists()
        assert rows_kept(broken) > rows
        rows = rows_kept(broken)
    result = quick.run(asked, broken, *arguments)
    assert (result.code, result.err.splitlines()[0]) == (1, f"Going on after {rows:,} rows that are done.")
    assert broken.read_bytes() == whole.read_bytes()
    assert manifest_of(broken) == manifest_of(whole)
    assert sorted(path.name for path in tmp_path.glob("broken*")) == [broken.name, f"{broken.name}.manifest.json"]


def test_killed_before_it_has_begun_it_begins(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 60), tmp_path / "a.jsonl"
    moments = random.Random(3)
    for _ in range(KILLS // 2):
        with quick.start(asked, answers) as process:
            time.sleep(moments.uniform(0, 2))
            process.kill()
    result = quick.run(asked, answers)
    assert (result.code, len(lines_of(answers))) == (1, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.manifest.json", "q.jsonl"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_finishes_the_rows_at_hand_and_says_how_to_go_on(
    quick: Whence, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 3_000), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 2, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    last = err.decode().splitlines()[-1]
    assert last == "whence: Stopped. The answers that are there are kept: run the same command to go on."
    rows = rows_kept(answers)
    assert 100 <= rows < 3_000
    assert answers.with_name("a.jsonl.partial").read_bytes().count(b"\n") == rows


def test_a_stream_that_is_stopped_leaves_nothing(quick: Whence, tmp_path: Path) -> None:
    answers = tmp_path / "a.jsonl"
    with quick.start("-", answers, stdin=subprocess.PIPE) as process:
        until(answers.with_name("a.jsonl.journal").exists, seconds=LIMIT_S)
        until(lambda: answers.with_name("a.jsonl.journal").read_bytes() != b"", seconds=LIMIT_S)
        time.sleep(3)  # it waits for questions
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LIMIT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"a run cannot go on: it begins anew.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_refused_when_what_decides_its_result_has_changed(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_000), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 1, process)
        process.kill()
    kept = answers.with_name("a.jsonl.partial").read_bytes()
    result = quick.run(asked, answers, "--top-k", "99")
    assert (result.code, "settings.top_k was 100, is 99" in result.err) == (1, True)
    with asked.open("a") as stream:
        stream.write('{"question": "One more?"}\n')
    result = quick.run(asked, answers, "--top-k", "100")
    assert (result.code, "input.sha256 was " in result.err) == (1, True)
    assert answers.with_name("a.jsonl.partial").read_bytes()[: len(kept)] == kept
    result = quick.run(asked, answers, "--top-k", "100", "--restart")
    assert (result.code, len(lines_of(answers))) == (1, 1_001)


def test_a_generation_that_is_published_meanwhile_changes_nothing(
    cache_folder: Path, tmp_path: Path, quick: Whence
) -> None:
    encoder = load_encoder(quick.model, cache_folder=cache_folder / "models")
    home = Home(tmp_path / "home")
    first = sync(home, [MemorySource(TEXTS)], encoder).generation
    whence = Whence(home.path, cache_folder, quick.model)
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_500), tmp_path / "a.jsonl"
    with whence.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 1, process)
        texts = {**TEXTS, "toaster.md": "Empty the crumb tray of the toaster weekly.\n"}
        sync(home, [MemorySource(texts)], encoder, settings=BuildSettings(keep_generations=1))
        assert [path.name for path in (home.path / "generations").iterdir()] != [first]
        assert process.wait(timeout=LIMIT_S) == 1
    answered = [line for line in lines_of(answers) if "error" not in line]
    assert {line["generation"] for line in answered} == {first}
    result = whence.run(asked, answers, "--top-k", "100")
    assert "is there already, and is not what this command would write" in result.err


def test_questions_that_grow_meanwhile_are_answered_as_they_were(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_000), tmp_path / "a.jsonl"
    size = asked.stat().st_size
    with quick.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 1, process)
        with asked.open("a") as stream:
            stream.write('{"question": "One more?"}\n' * 10)
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert f"{asked} has grown since; its first {size:,} bytes were answered." in err.decode()
    assert (len(lines_of(answers)), manifest_of(answers)["input"]["size"]) == (1_000, size)


def test_questions_that_change_meanwhile_give_no_result(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_000), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 1, process)
        with asked.open("r+b") as stream:
            stream.write(b'{"id": 1')
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "was changed while it was read. Answer it as it is now: --restart" in err.decode()
    assert not answers.exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_when_a_process_that_answers_is_killed_the_command_says_so_and_can_go_on(
    quick: Whence, tmp_path: Path
) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_500), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100", "--workers", "2") as process:
        wait_for_parts(answers, 1, process)
        os.kill(children_of(process.pid)[-1], signal.SIGKILL)
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert b"A process that answers questions has ended unexpectedly (signal SIGKILL)." in err
    assert b"Traceback" not in err
    result = quick.run(asked, answers, "--top-k", "100")
    assert (result.code, result.err.startswith("Going on after ")) == (1, True)
    assert len(lines_of(answers)) == 1_500


def test_processes_that_answer_do_not_outlive_the_command(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_500), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100", "--workers", "2") as process:
        wait_for_parts(answers, 1, process)
        children = children_of(process.pid)
        process.kill()
    assert len(children) == 2
    until(lambda: not any(map(is_running, children)), seconds=30)


def test_two_commands_do_not_write_the_same_result(quick: Whence, tmp_path: Path) -> None:
    asked, answers = write_questions(tmp_path / "q.jsonl", 1_000), tmp_path / "a.jsonl"
    with quick.start(asked, answers, "--top-k", "100") as process:
        wait_for_parts(answers, 1, process)
        process.send_signal(signal.SIGSTOP)  # or it might be done before the other one has begun
        result = quick.run(asked, answers, "--top-k", "100")
        process.send_signal(signal.SIGCONT)
        assert (result.code, f"Another process is writing {answers}." in result.err) == (1, True)
        assert process.wait(timeout=LIMIT_S) == 1
    assert len(lines_of(answers)) == 1_000
