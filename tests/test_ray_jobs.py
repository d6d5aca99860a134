"""What workers of a cluster do, done here: its results are those of one machine, and what differs there is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from handbook import Handbook
from tiny_models import write_tiny_cross_encoder, write_tiny_model
from typer.testing import CliRunner

from index.build import BuildSettings, SyncReport, sync
from index.chunks import TARGET_TOKENS
from index.cluster import Cluster, ClusterSettings, Worker, _given_up
from index.documents import Document
from index.embeddings import Encoder, load_encoder
from index.engines import SplitDocument
from index.errors import ClusterError
from index.generations import Home
from index.jobs import EncodeJob, FileBlock, Job, ReadJob, SharedModel
from index.manifest import MANIFEST
from index.ray_engine import FILES_OF_BLOCK, RayEngine
from index.readers.limits import Limits
from index.sources import Rejected, Source, SourceFile, source_files
from index.weights import default_weights
from service.batch_formats import OutputFormat
from service.batch_output import Shape
from service.batch_ray import AnswerJob
from service.batch_worker import Answerer, Work
from service.cli import app

ROOT = Path(__file__).parents[1]
Block = TypeVar("Block")
Result = TypeVar("Result")


class Here:
    """A pool that works in this process, on what a cluster would send."""

    def __init__(self) -> None:
        self.blocks = 0

    def map(self, job: Job[Block, Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """Take all blocks ahead, as a wave is."""
        with closing(Worker(version("whence"), pickle.dumps(job))) as worker:
            for number, block in enumerate(list(blocks)):
                self.blocks += 1
                row = done(worker, number, block)
                assert row["failure"] == ""
                yield pickle.loads(row["result"])


def done(worker: Worker, number: int, block: object) -> dict[str, Any]:
    """Have a worker do a block."""
    (row,) = worker(pa.table({"number": [number], "block": [pickle.dumps(block)]})).to_pylist()
    assert row["number"] == number
    return dict(row)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiny(model_folder: Path, cache_folder: Path) -> Encoder:
    return load_encoder(str(model_folder), cache_folder=cache_folder / "models")


@pytest.fixture(scope="module")
def shared(tiny: Encoder, cache_folder: Path) -> SharedModel:
    return SharedModel.of(tiny, cache_folder=cache_folder / "models", backend="onnx")


@pytest.fixture
def docs(tmp_path: Path) -> Source:
    """More files than a block has, some of them no documents."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(3 * FILES_OF_BLOCK + 2):
        name, text = (
            f"{number:02}.md",
            f"# Light {number}\n\nThe light means {number}. It is red.\n\n## More\n\nNo.\n",
        )
        (folder / name).write_text("" if number % 7 == 3 else text)
    (folder / "05.bin").write_bytes(bytes(range(256)) * 4)
    return Source(folder)


def files(home: Home) -> dict[str, bytes]:
    """Return the files of the published generation, without the manifest, which names it."""
    folder = home.folder(home.published_name() or "")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del found[MANIFEST]
    return found


def without_name(report: SyncReport) -> SyncReport:
    return replace(report, generation="", pruned=())


def test_a_build_by_a_pool_is_that_of_one_machine(
    docs: Source, tiny: Encoder, shared: SharedModel, tmp_path: Path
) -> None:
    alone, pooled, pool = Home(tmp_path / "alone"), Home(tmp_path / "pooled"), Here()
    for step in ("added", "changed", "unchanged"):
        if step == "changed":
            (docs.path / "04.md").write_text("# Light 4\n\nThe light means 4. It is blue.\n\n## More\n\nNo.\n")
            (docs.path / "09.md").unlink()
            (docs.path / "99.md").write_text("# Last\n\nThe last one.\n")
        here = sync(alone, [docs, Handbook()], tiny)
        there = sync(pooled, [docs, Handbook()], tiny, engine=RayEngine(pool, shared))
        assert without_name(there) == without_name(here)
        assert files(pooled) == files(alone)
    assert pool.blocks > 3 * 3


def test_what_is_unchanged_is_not_given_away(docs: Source, tiny: Encoder, shared: SharedModel, home: Home) -> None:
    sync(home, [docs], tiny)
    rejected = {each.path for each in sync(home, [docs], tiny).rejected}
    pool = Here()
    engine = RayEngine(pool, shared)
    (docs.path / "00.md").write_text("# Light 0\n\nThe light is new.\n")
    report = sync(home, [docs], tiny, engine=engine)
    assert (report.changed, report.encoded) == (("00.md",), 1)
    assert {each.path for each in report.rejected} == rejected
    assert pool.blocks == 1 + 1 + 1  # what is new and what was rejected, then a chunk, then its sentences


def test_chunks_are_those_of_the_settings(docs: Source, tiny: Encoder, shared: SharedModel, tmp_path: Path) -> None:
    settings = BuildSettings(target_tokens=8)
    alone, pooled = Home(tmp_path / "alone"), Home(tmp_path / "pooled")
    sync(alone, [docs], tiny, settings=settings)
    sync(pooled, [docs], tiny, settings=settings, engine=RayEngine(Here(), shared, target_tokens=8))
    assert files(pooled) == files(alone)


def test_a_file_that_a_busy_worker_could_not_read_is_read_here(docs: Source, shared: SharedModel) -> None:
    class Busy(Here):
        def map(self, job: Job[Block, Result], blocks: Iterable[Block]) -> Iterator[Any]:
            for block in list(blocks):
                assert isinstance(block, FileBlock)
                yield [Rejected(file.doc_id, "took longer than 60 s to read") for file in block.files]

    items = list(RayEngine(Busy(), shared).read(docs, {}))
    assert [item.doc_id for item in items[:3] if isinstance(item, Document)] == ["00.md", "01.md", "02.md"]
    assert items[3] == Rejected("03.md", "holds no text; leave it out or fill it")


def test_files_are_read_and_split(docs: Source, tiny: Encoder, shared: SharedModel) -> None:
    found = [file for file in source_files(docs) if isinstance(file, SourceFile)][:4]
    with ReadJob(shared, TARGET_TOKENS, Limits()).open() as read:
        *good, bad = read(FileBlock.of(found, Limits()))
    assert [item.document.title for item in good if isinstance(item, SplitDocument)] == [
        "Light 0",
        "Light 1",
        "Light 2",
    ]
    assert bad == Rejected("03.md", "holds no text; leave it out or fill it")


@pytest.mark.parametrize(("there", "what"), [("other", "holds other bytes there"), (None, "cannot be read there")])
def test_a_worker_that_sees_other_files_says_so(
    docs: Source, shared: SharedModel, there: str | None, what: str
) -> None:
    block = FileBlock.of([SourceFile(docs.path / "01.md", "01.md")], Limits())
    if there is None:
        (docs.path / "01.md").unlink()
    else:
        (docs.path / "01.md").write_text(there)
    told = pytest.raises(ClusterError, match=rf"01\.md {what}.*at the same path")
    with ReadJob(shared, TARGET_TOKENS, Limits()).open() as read, told:
        read(block)


def test_texts_get_the_bits_that_they_get_alone(tiny: Encoder, shared: SharedModel) -> None:
    texts = ["The red light means no power.", "x", "A router. " * 40]
    with EncodeJob(shared).open() as encode:
        assert np.array_equal(encode(texts), tiny.encode_documents(texts))


def test_another_model_of_the_same_name_is_refused(shared: SharedModel) -> None:
    other = replace(shared, identity=replace(shared.identity, files_sha256="ab" * 32))
    with pytest.raises(ClusterError, match=r"is another one here .*, not files abababababab…"):
        other.load()


def test_a_machine_that_computes_other_bits_is_refused(shared: SharedModel) -> None:
    with pytest.raises(ClusterError, match="gives other embeddings here"):
        replace(shared, probe="0" * 64).load()


def test_torch_is_refused(model_folder: Path, cache_folder: Path) -> None:
    reference = load_encoder(str(model_folder), cache_folder=cache_folder / "models", backend="torch")
    with pytest.raises(ClusterError, match=r"runs on torch.*--engine local"):
        SharedModel.of(reference, cache_folder=cache_folder, backend="torch")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny: Encoder, model_folder: Path, cache_folder: Path) -> Work:
    home = Home(tmp_path_factory.mktemp("work") / "home")
    sync(home, [Handbook()], tiny)
    with closing(home.open_current()) as generation:
        shape = Shape(OutputFormat.JSONL, top_k=2)
        models = cache_folder / "models"
        weights = default_weights()
        return Work(generation.folder, str(model_folder), models, "onnx", "full", 2, None, None, weights, shape)


def test_questions_get_the_answers_that_a_process_gives(work: Work) -> None:
    questions = ["What does the red light mean?", "Who won?", "東京タワー"]
    answerer = Answerer(work)
    answerer.load()
    with pickle.loads(pickle.dumps(AnswerJob.of(work))).open() as answer:
        assert answer(questions) == answerer.answer(questions)


def test_a_worker_that_does_not_see_the_generation_says_so(work: Work, tmp_path: Path) -> None:
    job = AnswerJob.of(work)
    elsewhere = replace(work, generation=tmp_path / work.generation.name)
    with (
        pytest.raises(ClusterError, match=r"is not at .* as it was published.*--home"),
        replace(job, work=elsewhere).open(),
    ):
        pass
    changed = replace(job.manifest, chunks=job.manifest.chunks + 1)
    with pytest.raises(ClusterError, match="as it was published"), replace(job, manifest=changed).open():
        pass


def test_a_reranker_is_refused(work: Work, tmp_path: Path) -> None:
    reranker = str(write_tiny_cross_encoder(tmp_path))
    with pytest.raises(ClusterError, match=r"The reranker .* runs on torch"):
        AnswerJob.of(replace(work, reranker=reranker))


class Divide:
    """A job that fails in a way that is expected, for some blocks."""

    @contextmanager
    def open(self) -> Iterator[Callable[[int], float]]:
        """Yield what divides."""

        def divide(block: int) -> float:
            if not block:
                raise ClusterError("Nothing can be divided by 0.")
            return 1 / block

        yield divide


def test_a_worker_says_where_and_why_it_cannot() -> None:
    worker = Worker(version("whence"), pickle.dumps(Divide()))
    assert pickle.loads(done(worker, 7, 2)["result"]) == 0.5
    row = done(worker, 8, 0)
    assert row["result"] == b""
    assert row["failure"].startswith("A worker on ")
    assert row["failure"].endswith(" cannot do its part. Nothing can be divided by 0.")


def test_a_worker_of_another_version_does_nothing() -> None:
    row = done(Worker("0.0.1", b"no pickle"), 0, 1)
    assert "and 0.0.1 runs the command. Install the same version on every machine." in row["failure"]


def test_a_cluster_without_ray_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"not installed .*: pip install 'whence\[ray\]'"):
        Cluster(ClusterSettings())


def test_the_command_line_does_not_load_ray() -> None:
    code = (
        "import sys, service.cli, service.batch, service.batch_ray; print([n for n in sys.modules if n[:3] == 'ray'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_a_machine_without_whence_is_told() -> None:
    error = _given_up(RuntimeError("The actor died.\n\nModuleNotFoundError: No module named 'index.cluster'\n"))
    assert str(error).startswith(
        "A machine of the cluster lacks Whence, or something it needs (ModuleNotFoundError: "
    )
    assert str(_given_up(OSError())) == "The cluster gave up: OSError. Run the command again."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", ".", "--engine", "spark"], "'spark' is not an engine; choose local or ray"),
        (["index", ".", "--workers", "2"], "only a Ray cluster has workers here"),
        (["batch", "in.jsonl", "out.jsonl", "--time-limit", "5"], "only a Ray cluster has a time limit"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output
