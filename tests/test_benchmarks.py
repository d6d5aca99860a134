"""The benchmarks of quality print the figures they promise, on data sets written here."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import fit_scores
import numpy as np
import pytest
import quality
from beir import write_dataset
from figures import print_figures, share, table

from index.embeddings import Encoder
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
