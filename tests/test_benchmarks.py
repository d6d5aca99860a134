"""The benchmarks print the figures they promise: those of quality on small data sets, the others part by part."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import ask
import corpora
import fit_scores
import indexing
import large
import late
import numpy as np
import peers
import plot
import processes
import pytest
import quality
import serve
import stages
import wrk
from beir import write_dataset
from figures import print_figures, share, table
from sources_in_memory import MemorySource

from index.answers import Question, answer_questions
from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.models import DEFAULT_MODEL, find_model
from index.onnx_export import OnnxSession, Precision, exported_model
from index.weights import ScoreWeights, default_weights

ANSWERS = {"q1": ["NO power!", "a fuse"], "q2": ["ten seconds"], "q3": ["lemon juice"], "unjudged": ["me"]}
OFF_CORPUS = ("Who won the football world cup in 1998?", "What is the capital of Mongolia?")
GUIDES = {
    "keys.md": "# Keys\n\nKeys are rotated every quarter. Ask the platform team.",
    "cakes.md": "# Cakes\n\nA plum cake needs three eggs.",
}
LABELS = [
    {"question": "How often are keys rotated?", "documents": ["keys.md"], "evidence": ["rotated every Quarter"]},
    {"question": "How many eggs does a plum cake need?", "documents": ["cakes.md"], "evidence": ["four eggs"]},
    {"question": "Who rotates the keys?", "documents": ["cakes.md"]},
    {"question": "What is the capital of Mongolia?", "documents": []},
]
Run = Callable[..., str]


def write_lines(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with everything that is measured."""
    folder = write_dataset(tmp_path_factory.mktemp("sets") / "appliances")
    answers = [{"_id": key, "answers": [{"text": text} for text in texts]} for key, texts in ANSWERS.items()]
    write_lines(folder / "answers.jsonl", answers)
    write_lines(folder / "queries-offcorpus.jsonl", [{"_id": text, "text": text} for text in OFF_CORPUS])
    return folder


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache_folder: Path, encoder: Encoder
) -> Run:
    """Run a benchmark as its command does, and return what it prints."""
    monkeypatch.setenv("WHENCE_CACHE", str(cache_folder))

    def run(main: Callable[[], None], *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


def sections(text: str) -> dict[str, list[list[str]]]:
    """Return the rows of the last table of each section, without its rule."""
    found = {}
    for section in text.split("## ")[1:]:
        heading, *blocks = section.split("\n\n")
        tables = [block for block in blocks if block.startswith("|")]
        rows = [line.strip("| ").split(" | ") for line in tables[-1].splitlines()] if tables else []
        found[heading] = rows[:1] + rows[2:]
    return found


def test_one_command_measures_retrieval_answers_and_silence(run: Run, folder: Path, tmp_path: Path) -> None:
    guides = tmp_path / "guides"
    guides.mkdir()
    for name, text in GUIDES.items():
        (guides / name).write_text(text)
    labels = write_lines(tmp_path / "labels.jsonl", LABELS)
    written = tmp_path / "quality.md"
    written.write_text("# Quality\n\nOf appliances.\n\n## What was here before\n")
    printed = run(quality.main, folder, "--labels", labels, "--documents", guides, "--write", written)
    assert written.read_text() == f"# Quality\n\nOf appliances.\n\n{printed}"

    found = sections(printed)
    retrieval, answers, labelled, silence, conditions = found
    assert retrieval == "Retrieval: appliances, 3 questions on 4 passages"
    assert [row[0] for row in found[retrieval]] == [
        "retrieval",
        "dense",
        "bm25",
        "whence",
        "whence − dense",
        "whence − bm25",
    ]
    assert found[retrieval][3][3] == "1.000 (1.000–1.000)"
    assert found[retrieval][4][3] == "+0.000 (+0.000 to +0.000), p 1.0000"
    assert found[answers][1][:4] == ["appliances", "3", "66.7%", "66.7%"]
    assert found[labelled][1][:4] == ["3 + 1", "66.7%", "100.0%", "50.0% of 2"]
    assert found[silence][0] == [
        "threshold",
        "appliances, right first",
        "appliances, off-corpus",
        "guides, right first",
        "guides, off-corpus",
    ]
    assert "| appliances | 3 | 2 | 1.000 |" in printed
    bounds = [float(row[0].split()[0]) for row in found[silence][1:]]
    assert bounds == sorted({*quality.THRESHOLDS, round(default_weights().confidence.threshold, 3)})
    for column in range(1, 5):
        shares = [float(row[column].rstrip("%")) for row in found[silence][1:]]
        assert all(lower <= higher for lower, higher in pairwise(shares))
    assert conditions == "Measured on"
    assert f"- score: dense {default_weights().score.dense}, " in printed


def test_a_data_set_without_answers_gets_the_tables_that_it_can(run: Run, tmp_path: Path) -> None:
    found = sections(run(quality.main, write_dataset(tmp_path / "bare")))
    assert [heading.split(":")[0] for heading in found] == ["Retrieval", "Silence", "Measured on"]
    assert found["Silence"][0] == ["threshold", "bare, right first"]


@pytest.mark.parametrize(("arguments", "message"), [([], "name a data set"), (["--labels", "a"], "go together")])
def test_asking_for_nothing_is_wrong_usage(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(quality.main, *arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "quote", "is_held"),
    [
        ("It took a total of 12 days.", "the 12 days", True),
        ("In 2012, days passed.", "12 days", False),
        ("The U.S. Army", "us army", True),
        ("Nothing", "the", False),
    ],
)
def test_a_quote_is_held_by_its_words_whatever_case_punctuation_and_articles(
    text: str, quote: str, is_held: bool
) -> None:
    assert quality.holds(text, [quality.normalised(quote)]) is is_held


def test_sentences_pooled_from_their_chunk_are_compared_with_those_read_alone(run: Run, folder: Path) -> None:
    printed = run(late.main, folder)
    (rows,) = (table for heading, table in sections(printed).items() if heading.startswith("Sentences"))
    assert rows[0] == ["data set", "chunks, processor s", "sentences", "one pass for both"]
    assert rows[1][0] == "appliances"
    assert "| appliances | ndcg@10 | 1.000 (1.000–1.000) |" in printed


def test_a_sentence_alone_in_its_chunk_is_pooled_to_the_embedding_of_the_chunk(
    home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [MemorySource({"light.txt": "The red light means that there is no power."})], encoder)
    exported = exported_model(find_model(DEFAULT_MODEL), cache_folder / "models", Precision.INT8)
    assert exported is not None
    with closing(home.open_current()) as generation:
        (chunk,) = late.all_chunks(generation)
        (pooled,) = late.pooled(chunk, OnnxSession(exported))
        (own,) = encoder.encode_documents(chunk.embedded_sentences)
    assert float(pooled @ own) > 0.9  # the marks at both ends belong to no sentence


def test_weights_are_fitted_and_measured_with_each_set_left_out(run: Run, folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other")
    written = tmp_path / "scores.md"
    printed = run(fit_scores.main, folder, other, "--weight", f"{other}=3", "--write", written)
    assert written.read_text() == printed
    found = sections(printed)
    figures = found["nDCG@10 and recall@1"]
    assert [row[:3] for row in figures[1:]] == [["appliances", "3", "1"], ["other", "3", "3"]]
    assert figures[1][4] == "1.000 (1.000–1.000), 1.000"
    assert [row[0] for row in found["Weights"]] == [
        "fit",
        "shipped",
        "all sets",
        "without appliances",
        "without other",
    ]
    for _, *weights in found["Weights"][2:]:
        assert sum(map(float, weights)) == pytest.approx(1)
        assert min(map(float, weights)) >= 0
    fitted = ScoreWeights(**tomllib.loads(printed.split("```")[1].removeprefix("toml"))["score"])
    assert [f"{getattr(fitted, part):.2f}" for part in fit_scores.PARTS] == found["Weights"][2][1:]
    assert fitted.furniture == default_weights().score.furniture


@pytest.mark.parametrize("option", ["missing=2", "appliances", "{folder}=0", "{folder}=much"])
def test_a_weight_of_no_set_or_no_number_is_wrong_usage(run: Run, folder: Path, option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(fit_scores.main, folder, "--weight", option.format(folder=folder))


def test_the_gradient_of_the_loss_is_that_of_small_steps() -> None:
    random = np.random.default_rng(0)
    parts, first = random.random((9, 3)), np.array([0, 4, 6])
    relevant = np.array([1, 0, 1, 0, 0, 1, 0, 0, 1], dtype=bool)
    weights = np.array([2.0, 0.5, 1.0])
    value, gradient = fit_scores.loss(weights, parts, relevant, first)
    powers = np.exp(parts @ weights)
    shares = [
        powers[part][relevant[part]].sum() / powers[part].sum() for part in (slice(4), slice(4, 6), slice(6, 9))
    ]
    assert value == pytest.approx(-np.mean(np.log(shares)))
    steps = [fit_scores.loss(weights + step, parts, relevant, first)[0] - value for step in 1e-6 * np.eye(3)]
    assert gradient == pytest.approx(np.array(steps) / 1e-6, abs=1e-5)


def test_only_what_tells_relevant_candidates_from_others_gets_weight() -> None:
    random = np.random.default_rng(0)
    parts = random.random((400, len(fit_scores.PARTS)))
    bounds = np.arange(0, 401, 10)
    best = bounds[:-1] + (parts[:, 0] + 0.2 * parts[:, 2]).reshape(-1, 10).argmax(axis=1)
    parts[:, 1] = 1 - parts[:, 0]
    sample = fit_scores.Sample("made", {}, [], bounds, parts, np.empty(0), np.isin(np.arange(400), best))
    weights = fit_scores.fit([sample], {"made": 1.0})
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == weights.max()
    assert weights[1] == 0


def test_rounded_weights_still_add_up_to_one() -> None:
    assert fit_scores.rounded(np.array([0.334, 0.333, 0.333])).tolist() == [0.34, 0.33, 0.33]


def test_tables_and_shares_are_written_in_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table(["set", "n"], [["a", "1"]]) == ["| set | n |", "| --- | --- |", "| a | 1 |", ""]
    assert (share(1, 3), share(0, 0)) == ("33.3%", "")
    file = tmp_path / "figures.md"
    for number in "12":
        print_figures(["## Figures", "", number, ""], file)
        assert file.read_text() == capsys.readouterr().out == f"## Figures\n\n{number}\n"


PRINTED = """Running 5s test @ http://127.0.0.1:1/
  1 threads and 4 connections
Requests/sec:    298.10

{"requests": 1500, "duration_us": 5000000, "failed": 3, "p50_us": 3300, "p95_us": 5810, "p99_us": 9000}
"""


def trial(*, rate: float, p50_ms: float, found: float | None = 0.75) -> serve.Trial:
    memory = processes.Memory(processes=2, rss=300, largest=200, pss=250, shared=60)
    return serve.Trial(1.5, found, memory, memory, {16: wrk.Load(rate, p50_ms, 2 * p50_ms, 3 * p50_ms, failed=1)})


def test_what_wrk_bore_is_read_from_the_line_that_its_script_writes() -> None:
    assert wrk.read_load(PRINTED) == wrk.Load(rate=300, p50_ms=3.3, p95_ms=5.81, p99_ms=9.0, failed=3)


def test_each_request_is_a_line_for_the_script(tmp_path: Path) -> None:
    wrk.write_requests([wrk.Request("POST", "/ask", '{"q": "a b"}'), wrk.Request("GET", "/search?q=a")], tmp_path)
    assert (tmp_path / "requests.txt").read_text() == 'POST /ask {"q": "a b"}\nGET /search?q=a\n'
    assert (tmp_path / "requests.lua").read_text() == wrk.SCRIPT


def test_rounds_are_summed_up_by_medians_and_compared_within_themselves() -> None:
    trials = {
        "full-1": [trial(rate=300, p50_ms=4), trial(rate=280, p50_ms=5), trial(rate=330, p50_ms=3)],
        serve.BASE: [trial(rate=30, p50_ms=40), trial(rate=35, p50_ms=35), trial(rate=30, p50_ms=36)],
        "empty": [trial(rate=3000, p50_ms=0.4, found=None)] * 3,
    }
    names = {"full-1": "Whence", serve.BASE: "txtai", "empty": "nothing"}
    ours, theirs, empty = serve.load_rows(names, trials)
    assert ours == ["Whence", "16", "300", "10 (8.0–11)", "4.00", "8.00", "12.0", "10 (7.0–12)", "3"]
    assert theirs[:4] == ["txtai", "16", "30", "1.0 (1.0–1.0)"]
    assert empty[2:5] == ["3,000", "100 (86–100)", "0.40"]
    rows = list(serve.memory_rows(names, trials))
    assert rows[0] == ["Whence", "1.50", "2", "300", "300", "200", "250", "60", "75%"]
    assert rows[2][-1] == ""


def test_without_the_service_to_compare_with_there_are_no_ratios() -> None:
    ((*_, sooner, failed),) = serve.load_rows({"full-1": "Whence"}, {"full-1": [trial(rate=300, p50_ms=4)]})
    assert (sooner, failed) == ("", "1")


def test_the_report_has_a_row_for_each_load_and_each_service(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    corpus = corpora.read_corpus(folder)
    trials = {"full-1": [trial(rate=300, p50_ms=4)]}
    lines = serve.report({"full-1": "Whence"}, trials, corpus, ["Here."])
    assert "| Whence | 16 | 300 |  | 4.00 | 8.00 | 12.0 |  | 1 |" in lines
    assert "| Whence | 1.50 | 2 | 300 | 300 | 200 | 250 | 60 | 75% |" in lines


def test_a_plot_has_a_row_for_each_service_and_a_dot_for_each_number_of_clients() -> None:
    panel = plot.Panel("answers a second", {"Whence": {1: 300.0, 16: 280.0}, "A & B": {1: 30.0, 16: 35.0}})
    root = ElementTree.fromstring(plot.svg("Answers", [panel, panel]))
    circles = root.findall("{*}circle")
    assert [circle[0].text for circle in circles if len(circle)][:3] == [
        "Whence, 1 clients: 300",
        "Whence, 16 clients: 280",
        "A & B, 1 clients: 30",
    ]
    dots = [float(circle.attrib["cx"]) for circle in circles if len(circle)]
    assert dots[0] - dots[2] == pytest.approx((dots[0] - dots[1]) / np.log10(300 / 280), rel=0.01)


@pytest.mark.parametrize(
    ("values", "powers"), [([30, 280], [1, 2, 3]), ([0.4, 1000], [-1, 0, 1, 2, 3]), ([1, 1], [0, 1])]
)
def test_a_scale_goes_over_whole_powers_of_ten(values: list[float], powers: list[int]) -> None:
    assert list(plot.decades(values)) == powers


def test_memory_is_that_of_a_process_and_its_children(tmp_path: Path) -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while len(processes.family(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        memory = processes.memory_of(process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert memory.processes == 2
    assert memory.rss > memory.largest > 0
    assert memory.rss > memory.pss > 0
    assert processes.family(process.pid) == []


def test_memory_is_read_in_megabytes() -> None:
    text = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:          1000000 kB\nPss:   500 kB\n"
    assert processes.read_rollup(text) == {"Rss": 1024.0, "Pss": 0.512}


def test_a_process_that_ends_too_early_is_told_with_what_it_said(tmp_path: Path) -> None:
    log, command = tmp_path / "log", [sys.executable, "-c", "print('no such port')"]
    with processes.running(command, environment={}, log=log) as process, pytest.raises(RuntimeError, match="no such"):
        processes.wait_until(lambda: False, process, limit_s=10, log=log)


def test_a_service_ends_with_its_block(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with processes.running(command, environment={}, log=tmp_path / "log") as process:
        assert process.poll() is None
    assert process.returncode == -15


def test_settings_of_the_caller_do_not_change_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_TOP_K", "50")
    environment = processes.whence_environment(Path("home"), Path("cache"))
    assert {name for name in environment if name.startswith("WHENCE_")} == {
        "WHENCE_HOME",
        "WHENCE_CACHE",
        "WHENCE_ANSWER_CACHE",
    }
    assert environment["WHENCE_ANSWER_CACHE"] == "0"


def test_a_part_of_a_data_set_has_the_questions_that_it_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    whole, part = corpora.read_corpus(folder), corpora.read_corpus(folder, passages=1)
    assert (len(whole.passages), len(whole.questions)) == (4, 3)
    assert list(part.passages) == list(whole.passages)[:1]
    assert all(asked.doc_ids <= set(part.passages) for asked in part.questions)
    assert len(part.questions) < 3
    again = corpora.read_corpus(part.documents)
    assert again.passages == part.passages
    assert again.questions == part.questions


def test_the_bundled_documents_are_asked_for_their_own_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    corpus = corpora.read_corpus(None)
    texts = {path.name: " ".join(path.read_text().split()) for path in corpora.SEEDS.glob("*.md")}
    assert len(corpus.questions) > 100
    assert all(asked.text in texts[name] for asked in corpus.questions for name in asked.doc_ids)
    assert len(corpus.passages_file.read_text().splitlines()) == len(corpus.passages)


def test_every_service_is_told_to_listen_on_loopback_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    found = peers.services(corpora.read_corpus(None), tmp_path / "peers")
    assert tuple(service.key for service in found) == serve.KEYS
    for service in found:
        command = service.started_on(8123)
        assert command[command.index("--host") + 1] == "127.0.0.1"
        assert command[-2:] == ["--port", "8123"]


def test_a_question_is_written_as_each_service_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    asked = {
        service.key: service.request("what & why?") for service in peers.services(corpora.read_corpus(None), tmp_path)
    }
    assert asked["full-1"] == wrk.Request("POST", "/v1/ask", '{"question": "what & why?", "top_k": 5}')
    assert asked["txtai-dense"] == wrk.Request("GET", "/search?query=what+%26+why%3F&limit=5")
    assert asked["plain"] == asked["empty"] == wrk.Request("POST", "/search", asked["full-1"].body)


def test_a_large_index_is_made_of_real_sentences_and_asked_by_the_real_model(
    cache_folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(cache_folder))
    corpus = corpora.read_corpus(None)
    monkeypatch.setattr(large, "sentences_of", lambda texts: corpora.sentences_of(texts)[:40])
    corpus = replace(corpus, kept=cache_folder / "large")
    corpus.kept.mkdir()
    home = large.large_home(corpus, 60)
    with closing(Home(home).open_current()) as generation:
        assert generation.manifest.chunks == 60
        assert generation.manifest.model == encoder.identity
        wanted = corpora.sentences_of(list(corpus.passages.values()))[7]
        (answer,) = answer_questions(generation, encoder, [Question(wanted)])
        assert wanted in answer.passages[0].text
    assert large.large_home(corpus, 60) == home


def test_sentences_are_cut_behind_full_stops_and_kept_once() -> None:
    long = "This sentence is long enough to be one that is kept."
    assert corpora.sentences_of([f"{long} No. {long}\n# A heading of some length that has no full stop", "x"]) == [
        long
    ]


def test_time_in_a_stage_does_not_count_for_those_that_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    stopwatch = stages.Stopwatch()
    inner = stopwatch.timed(lambda: wait(5), "inner", begins=False)
    outer = stopwatch.timed(lambda: [inner(), inner(), wait(1)], "outer", begins=True)
    outer()
    outer()
    assert stopwatch.questions == [{"inner": 10, "outer": 1}] * 2


def test_functions_methods_and_class_methods_are_timed_and_missing_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answering.py").write_text(
        "class Answer:\n    @classmethod\n    def of(cls): return cls()\n    def text(self): return 'yes'\n"
        "def answer(): return Answer.of().text()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    stopwatch = stages.Stopwatch()
    named = {"all": ["answering:answer"], "of": ["answering:Answer.of"], "text": ["answering:Answer.text", "gone:x"]}
    assert stages.install(stopwatch, {**named, "none": ["answering:Gone.x"]}, "answering:answer") == [
        "gone:x",
        "answering:Gone.x",
    ]
    assert sys.modules["answering"].answer() == "yes"
    assert [set(question) for question in stopwatch.questions] == [{"all", "of", "text"}]


def test_every_stage_of_a_question_is_there_to_be_timed() -> None:
    for names in stages.STAGES.values():
        owner, attribute = stages.find(names[0])
        assert callable(getattr(owner, attribute))
    assert stages.BEGINS in {name for names in stages.STAGES.values() for name in names}


def test_stages_and_what_is_around_them_add_up_to_the_whole() -> None:
    taken = dict.fromkeys(stages.STAGES, 0.5)
    whole, timed = wrk.Load(100, 9.0, 12.0, 20.0, 0), wrk.Load(90, 10.0, 13.0, 21.0, 0)
    figures = stages.Figures("made", taken, [], timed, whole, alone_ms=7.5)
    found = dict(stages.rows([figures]))
    around = 10 - 0.5 * len(taken)
    assert found["HTTP, waiting, handing over"] == f"{around:.3f}"
    assert found["p50 / encoder + search alone"] == "**1.20**"
    assert found["encoder + search within the answer"] == "1.50"


def test_indexing_is_compared_within_rounds() -> None:
    ours = [indexing.Run(10, 16, 12, 400), indexing.Run(20, 18, 22, 400), indexing.Run(10, 16, 12, 400)]
    theirs = [indexing.Run(30, 32, 40, 0), indexing.Run(30, 36, 40, 0), indexing.Run(40, 40, 48, 0)]
    assert indexing.rows({indexing.OURS: ours, indexing.THEIRS: theirs}, 100) == [
        ["Whence", "400", "10.0", "10", "16.0", "12.0"],
        ["txtai hybrid", "0", "30.0", "3", "36.0", "40.0"],
        ["txtai hybrid / Whence", "", "**3.00**", "", "2.00", "3.33"],
    ]


def test_asking_is_summed_up_with_its_range_and_its_greatest_memory() -> None:
    asking = ask.Asking("seeds", [ask.Run(1.0, 150), ask.Run(0.8, 160), ask.Run(1.4, 140)], [])
    assert ask.row(asking) == ["seeds", "3", "1.00", "0.80–1.40", "160", "none"]
