"""The command line: data on standard output, progress and messages on standard error.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from index.answers import Answer, Question, answer_questions
from index.backups import back_up, restore
from index.build import BuildSettings, SyncReport, sync
from index.calibration import calibration_of, remove_calibration, weights_of
from index.citations import Standing
from index.cluster import Cluster, ClusterSettings
from index.cpus import usable_cpus
from index.embeddings import BACKENDS, Encoder, QueryEncoder
from index.engines import Engine
from index.errors import EvaluationError, NoGenerationError, QuestionError, SourceError, WhenceError
from index.generations import Home
from index.jobs import SharedModel
from index.milvus.store import MilvusStore
from index.models import DEFAULT_MODEL
from index.ray_engine import RayEngine
from index.sources import Source
from index.store import OpenGeneration
from index.uploads import UPLOADS
from index.weights import EncoderName
from service.bundled import seeds_folder
from service.display import (
    TerminalProgress,
    output,
    print_done,
    print_json,
    print_line,
    show_answer,
    show_report,
    visible,
)
from service.filter_syntax import parse_filters
from service.keys_cli import keys
from service.loading import loaded_for_good
from service.models import find_chosen_reranker, load_chosen_reranker, load_model, load_query_encoder
from service.options import (
    AddressOption,
    BackendOption,
    EncoderOption,
    EngineOption,
    FilterOption,
    HomeOption,
    JsonOption,
    MinConfidenceOption,
    ModelOption,
    RerankerOption,
    StoreOption,
    TimeLimitOption,
    TopKOption,
    WaitOption,
    chosen_cluster,
)
from service.schemas.answers import VerificationJson, answer_json
from service.schemas.calibration import CalibrationResetJson
from service.schemas.evaluation import ComparisonJson, EvaluationJson
from service.schemas.operations import BackupJson, GenerationJson, PublishedJson, StatusJson, SyncReportJson
from service.settings import Overload, Settings, as_prefix, read_settings
from service.stopping import StoppedError
from service.stores import chosen_store

if TYPE_CHECKING:  # the metrics library takes half a second to load
    from index.evaluation import Difference, Measurement, Qrels, Run

INTERRUPTED = 130  # exit code after Ctrl-C

app = typer.Typer(
    name="whence",
    help="Answers questions in the exact words of your documents, and says whence they come.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys, name="keys")
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line."""
    _use_utf8()
    logging.basicConfig(level=logging.WARNING, format="whence: %(message)s", stream=sys.stderr)
    try:
        app(prog_name="whence")
    except QuestionError as error:
        _fail(error, code=2)
    except StoppedError as error:
        _fail(error, code=error.exit_code)
    except WhenceError as error:
        _fail(error, code=1)
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            _fail(WhenceError("Stopped. Nothing that was published has changed."), code=INTERRUPTED)
        raise
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; nothing is left to say.
        sys.stderr.close()
        sys.exit(1)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    top_k: TopKOption = None,
    filters: FilterOption = None,
    min_confidence: MinConfidenceOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    backend: BackendOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question; with no index yet, build one from the bundled documents first."""
    settings = _settings(
        home=home,
        store=store,
        model=model,
        reranker=reranker,
        backend=backend,
        encoder=encoder,
        top_k=top_k,
        min_confidence=min_confidence,
    )
    asked = Question(
        question,
        top_k=settings.top_k,
        filters=parse_filters(filters or []),
        min_confidence=settings.min_confidence,
    )
    with _open_index(settings) as (generation, query_encoder):
        weights = weights_of(settings.home, generation.manifest, settings.encoder)
        (answer,) = answer_questions(
            generation, query_encoder, [asked], weights=weights, reranker=load_chosen_reranker(settings)
        )
    _print_answer(answer, as_json)


@app.command()
def index(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders and files to sync; none syncs those already known.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Put before the ids of these documents; a known source keeps its own.")
    ] = None,
    remove: Annotated[
        list[Path] | None, typer.Option(help="Drop a source and its documents; may be repeated.")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let a source that had documents have none.")
    ] = False,
    keep: Annotated[int | None, typer.Option(min=1, help="Generations kept (WHENCE_KEEP_GENERATIONS).")] = None,
    wait: WaitOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers of a Ray cluster, at most.")] = None,
    time_limit: TimeLimitOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    backend: BackendOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the index up to date with folders and files, in a new generation."""
    settings = _settings(home=home, store=store, model=model, backend=backend, wait=wait, keep_generations=keep)
    cluster = chosen_cluster(engine, address=address, workers=workers, time_limit=time_limit)
    if workers is not None and cluster is None:
        raise typer.BadParameter("only a Ray cluster has workers here: --engine ray", param_hint="--workers")
    destination, own = chosen_store(settings), Home(settings.home)
    known = _known_sources(own)
    removed = [_source_key(path) for path in remove or []]
    _refuse_unknown(removed, known)
    sources = [_source(path, prefix, known) for path in paths or []]
    if not paths:
        sources = [source for source in known if source.key not in removed]
    if not sources and not removed and not _has_uploads(own):
        raise WhenceError("Nothing to index. Name a folder or a file: whence index PATH")
    report = _sync(
        own, sources, settings, remove=removed, allow_empty=allow_empty, may_download=True, cluster=cluster
    )
    if destination is not None:
        _publish(own, destination, settings)
    _print_report(report, as_json)


@app.command()
def prepare(model: ModelOption = None, backend: BackendOption = None) -> None:
    """Make the model ready in the cache folder, so that no later command has to: when an image is built."""
    settings = _settings(model=model, backend=backend)
    encoder = load_model(settings, settings.model or DEFAULT_MODEL, may_download=True)
    identity = encoder.identity
    output.print(Text(visible(f"Model {identity.name} in {identity.precision}, SHA-256 {identity.sha256}")))
    output.print(Text(visible(f"Ready in {settings.cache}")))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (WHENCE_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one (WHENCE_PORT).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that answer (WHENCE_WORKERS).")
    ] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch", help="Sync sources when their files change (WHENCE_WATCH).")
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path under which a proxy serves this (WHENCE_ROOT_PATH).")
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen on any address without keys (WHENCE_INSECURE).")
    ] = None,
    require_key: Annotated[
        bool | None,
        typer.Option("--require-key", help="Ask for keys on a loopback address, too (WHENCE_REQUIRE_KEY)."),
    ] = None,
    bundled: Annotated[
        bool | None,
        typer.Option("--bundled/--empty", help="What a home without an index starts with (WHENCE_BUNDLED)."),
    ] = None,
    home: HomeOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    backend: BackendOption = None,
    encoder: EncoderOption = None,
    overload: Annotated[
        str | None,
        typer.Option(help="When too many questions wait: refuse more, or instant answers (WHENCE_OVERLOAD)."),
    ] = None,
) -> None:
    """Answer over HTTP; with no index yet, build one from the bundled documents first."""
    with loaded_for_good():
        # Imported here: no other command needs the service.
        from service.server import serve as run_service

    settings = _settings(
        host=host,
        port=port,
        workers=workers,
        watch=watch,
        root_path=None if root_path is None else as_prefix(root_path),
        insecure=insecure,
        require_key=require_key,
        bundled=bundled,
        home=home,
        store=store,
        model=model,
        reranker=reranker,
        backend=backend,
        encoder=encoder,
        overload=overload,
    )
    run_service(settings)


@app.command()
def mcp(
    top_k: TopKOption = None,
    min_confidence: MinConfidenceOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    backend: BackendOption = None,
) -> None:
    """Answer a program that speaks MCP, on standard input and output; with no index yet, build one first."""
    # Imported here: no other command needs it.
    from service.mcp_stdio import serve_stdio

    serve_stdio(
        _settings(
            home=home,
            store=store,
            model=model,
            reranker=reranker,
            backend=backend,
            top_k=top_k,
            min_confidence=min_confidence,
        )
    )


@app.command()
def status(home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check the published generation, and say what it holds."""
    settings = _settings(home=home, store=store)
    chosen = chosen_store(settings)
    generation = (chosen or Home(settings.home)).open_current()
    generation.close()
    manifest = generation.manifest
    calibration = calibration_of(settings.home, manifest)
    reranker = find_chosen_reranker(settings)
    if as_json:
        print_json(StatusJson.of(manifest, home=settings.home, calibration=calibration, reranker=reranker))
        return
    where = settings.home if chosen is None else chosen.address
    output.print(Text(visible(f"{manifest.name}, published in {where}"), style="bold"))
    output.print(f"{manifest.documents} documents, {manifest.chunks} chunks, {manifest.sentences} sentences; whole")
    model = manifest.model
    output.print(Text(visible(f"Model {model.name} in {model.precision}, SHA-256 {model.sha256}")))
    if manifest.dense.oversampling:
        output.print(f"Searched by sketches, which find {manifest.dense.recall:.1%} of the nearest chunks")
    if reranker is not None:
        output.print(Text(visible(f"Reranker {reranker.name}, SHA-256 {reranker.sha256}")))
    if calibration is None:
        output.print("Confidence as it ships")
    else:
        asked = f"{calibration.answerable} answerable and {calibration.unanswerable} unanswerable questions"
        output.print(f"Confidence calibrated {calibration.created} on {asked}")
    for source in manifest.sources:
        output.print(Text(visible(f"Source {source.path}: {source.documents} documents")))


@app.command()
def generations(home: HomeOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the generations, newest first."""
    settings = _settings(home=home, store=store)
    own, chosen = Home(settings.home), chosen_store(settings)
    if chosen is None:
        own.refuse_other_format()
    published = (chosen or own).published_name()
    manifests = (chosen or own).manifests()
    if not manifests:
        where = own.path if chosen is None else chosen.address
        raise NoGenerationError(f"No index in {where}. Build one: whence index PATH --home {own.path}")
    if as_json:
        for manifest in manifests:
            print_json(GenerationJson.of(manifest, published=manifest.name == published))
        return
    table = Table("", "generation", "created", "documents", "chunks", "model", box=None)
    for manifest in manifests:
        mark = "→" if manifest.name == published else ""
        counts = (str(manifest.documents), str(manifest.chunks))
        table.add_row(mark, manifest.name, manifest.created, *counts, Text(visible(manifest.model.name)))
    output.print(table)


@app.command()
def rollback(
    name: Annotated[str | None, typer.Argument(help="A generation; the one before the published if unnamed.")] = None,
    wait: WaitOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an earlier generation, or a later one again."""
    settings = _settings(home=home, store=store, wait=wait)
    chosen = chosen_store(settings)
    if chosen is None:
        published = Home(settings.home).roll_back(name, wait_s=settings.wait)
    else:
        published = chosen.roll_back(name)
    print_done(PublishedJson(published=published), f"Published {published}.", as_json)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Saved answers: JSON or JSON Lines; - for standard input.")],
    home: HomeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the citations of saved answers against the documents as they are now.

    Exit code 1 when a quote was changed or its document is gone.
    """
    # Imported here: only this command reads saved answers.
    from service.verification import read_citations, verify_citations

    citations = read_citations(file)
    settings = _settings(home=home, store=store)
    results = verify_citations(citations, Home(settings.home), store=chosen_store(settings))
    for result in results:
        if as_json:
            print_json(VerificationJson.of(result))
        else:
            where = "" if result.start is None else f" {result.start}–{result.end}"
            quote = " ".join(result.citation.quote.split())
            line = f"{result.standing.value:8}{result.citation.doc_id}{where}: {quote}"
            output.print(Text(visible(line)), overflow="ellipsis", no_wrap=True)
    lost = sum(result.standing in (Standing.CHANGED, Standing.GONE) for result in results)
    if lost:
        raise WhenceError(f"{lost} of {len(results)} quotes are not in the documents any more as they were cited.")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The tar file to write.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the published generation and the state of the home to one file."""
    name = back_up(Home(_settings(home=home).home), file)
    print_done(BackupJson(generation=name, file=str(file)), f"Wrote {name} to {file}.", as_json)


@app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that whence backup wrote.")],
    wait: WaitOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the generation of a backup; what the home holds stays as earlier generations."""
    settings = _settings(home=home, wait=wait)
    name = restore(Home(settings.home), file, wait_s=settings.wait)
    print_done(PublishedJson(published=name), f"Published {name} from {file}.", as_json)


@app.command()
def batch(
    questions: Annotated[Path, typer.Argument(metavar="IN", help="Questions; - for standard input.")],
    answers: Annotated[Path, typer.Argument(metavar="OUT", help="Where answers go; - for standard output.")],
    top_k: TopKOption = None,
    filters: FilterOption = None,
    min_confidence: MinConfidenceOption = None,
    field: Annotated[str | None, typer.Option(help="That holds the question; else question or text.")] = None,
    input_format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, lines or parquet; else told by the name.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of the questions.")] = "utf-8",
    output_format: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv, parquet or trec; else told by the name.")
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="Fields that are kept, separated by commas; else all of them.")
    ] = None,
    id_field: Annotated[str | None, typer.Option(help="That holds the query ids of a TREC run.")] = None,
    for_spreadsheet: Annotated[
        bool, typer.Option("--for-spreadsheet", help="Keep a CSV's cells from being taken for formulas.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End with the first row that fails.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over, and replace the answers that are there.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that answer; else one on each core.")
    ] = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    time_limit: TimeLimitOption = None,
    home: HomeOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    backend: BackendOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer the questions of a file; killed and started again, it goes on where it was.

    Exit code 1 when a row has no answer, which then says why.
    """
    # Imported here: no other command needs it.
    from service.batch import Batch, run, summary
    from service.batch_formats import kind_of
    from service.batch_options import STREAM, answer_shape, checked, question_file

    settings = _settings(
        home=home,
        model=model,
        reranker=reranker,
        backend=backend,
        encoder=encoder,
        top_k=top_k,
        min_confidence=min_confidence,
    )
    if settings.store is not None:
        raise WhenceError("A batch is answered from a home, not from a store. Unset WHENCE_STORE.")
    shape = answer_shape(
        answers,
        form=output_format,
        top_k=settings.top_k,
        fields=fields,
        id_field=id_field,
        for_spreadsheet=for_spreadsheet,
    )
    wanted = Batch(
        questions=question_file(questions, form=input_format, field=field, encoding=encoding),
        answers=None if answers == STREAM else answers,
        compression=kind_of(answers).compression,
        shape=shape,
        filters=parse_filters(filters or []),
        min_confidence=settings.min_confidence,
        workers=workers or usable_cpus(),
        fails_fast=fail_fast,
        restarts=restart,
        cluster=chosen_cluster(engine, address=address, workers=workers, time_limit=time_limit),
    )
    manifest = run(checked(wanted), settings, errors)
    if as_json and wanted.answers is not None:
        print_json(manifest)
    else:
        errors.print(Text(manifest.model_dump_json() if as_json else summary(manifest)))
    if manifest.counts.failed:
        raise WhenceError(f"{manifest.counts.failed:,} of {manifest.counts.rows:,} rows have no answer.")


@app.command()
def calibrate(
    labels: Annotated[
        Path | None, typer.Argument(help='JSON Lines: {"question": "...", "documents": ["guide.md", ...]}.')
    ] = None,
    silence: Annotated[
        float, typer.Option(min=0, max=1, help="Share of answerable questions that may stay without an answer.")
    ] = 0.08,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the figures, and store nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the confidence that ships.")] = False,
    home: HomeOption = None,
    model: ModelOption = None,
    reranker: RerankerOption = None,
    backend: BackendOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the confidence to labelled questions of your own; everything that answers from this home goes by it."""
    settings = _settings(home=home, model=model, reranker=reranker, backend=backend)
    if (labels is None) != reset or (dry_run and reset):
        raise typer.BadParameter("give a file of labels, or --reset alone", param_hint="LABELS")
    if labels is None:
        was_calibrated = remove_calibration(settings.home)
        message = "The confidence is as it ships." if was_calibrated else "The confidence was as it ships."
        print_done(CalibrationResetJson(was_calibrated=was_calibrated), message, as_json)
        return
    # Imported here: what fits takes a second to load.
    from service.calibrating import calibrate_home, show_calibration

    report = calibrate_home(labels, settings, errors, silence=silence, is_stored=not dry_run)
    if as_json:
        print_json(report)
    else:
        show_calibration(output, report, home=settings.home)
    if settings.min_confidence is not None:
        errors.print(f"WHENCE_MIN_CONFIDENCE is {settings.min_confidence:g}, and stands in for the threshold.")


@app.command()
def evaluate(
    dataset: Annotated[Path, typer.Argument(help="A folder in BEIR layout.")],
    split: Annotated[str | None, typer.Option(help="Which qrels file; test if there is one.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=200, help="Documents ranked for a query.")] = 100,
    run: Annotated[Path | None, typer.Option(help="Write the ranking as a TREC run.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another system's TREC run; tells whether the difference is significant.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="Keep the data set's index below this folder, not below the cache.")
    ] = None,
    model: ModelOption = None,
    backend: BackendOption = None,
    reranker: RerankerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure retrieval on a data set: dense alone, BM25 alone, and as questions are answered."""
    # Imported here: the metrics library takes half a second to load.
    from index.evaluation import compare as differences
    from index.evaluation import evaluate as measure
    from index.evaluation import read_dataset, write_run
    from index.runs import index_dataset, rank_queries

    settings = _settings(model=model, backend=backend, reranker=reranker)
    data = read_dataset(dataset, split=split)
    other = None if compare is None else _read_other_run(compare, data.qrels)
    if run is not None:
        with _writing_run(run):
            run.open("a").close()  # before hours are spent on what could not be written
    encoder = load_model(settings, settings.model or DEFAULT_MODEL, may_download=True)
    judge = load_chosen_reranker(settings)
    with TerminalProgress(errors) as progress:
        folder = dataset.resolve()
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        store = Home((home or settings.cache) / "evaluations" / f"{folder.name}-{digest}")
        with closing(index_dataset(data, folder, store, encoder, progress)) as generation:
            runs = rank_queries(generation, encoder, data.queries, top_k=top_k, progress=progress, reranker=judge)
    answering = list(runs)[-1]
    if run is not None:
        with _writing_run(run):
            write_run(runs[answering], run, tag="whence")
    measured = [(name, measure(data.qrels, ranking)) for name, ranking in runs.items()]
    if other is not None:
        name = str(compare).encode("utf-8", "replace").decode()  # the name of a file may be no text
        measured.append((name, measure(data.qrels, other)))
    _print_evaluation(measured, as_json)
    if other is not None:
        (_, ours), (name, theirs) = measured[-2:]
        _print_comparison(answering, name, differences(ours, theirs), as_json)


def _read_other_run(path: Path, qrels: Qrels) -> Run:
    """Read the run to compare with; queries that it leaves out count as 0, and it must not leave out all."""
    from index.evaluation import read_run, unranked

    run = read_run(path)
    missing = unranked(qrels, run)
    if missing and len(missing) == len(qrels):
        raise EvaluationError(
            f"The run {path} ranks none of the {len(qrels)} queries that are judged, such as {missing[0]!r}. "
            "Give a run over this data set and split."
        )
    if missing:
        message = f"{path} ranks nothing for {len(missing)} of {len(qrels)} queries; they count as 0 for it."
        errors.print(Text(visible(message)))
    return run


def _print_evaluation(measured: Sequence[tuple[str, Mapping[str, Measurement]]], as_json: bool) -> None:
    if as_json:
        for name, figures in measured:
            print_json(EvaluationJson.of(name, figures))
        return
    table = Table("retrieval", *measured[0][1], box=None)
    for name, figures in measured:
        cells = (f"{value.mean:.3f} ({value.low:.3f}–{value.high:.3f})" for value in figures.values())
        table.add_row(Text(visible(name)), *cells)
    output.print(table)


def _print_comparison(ours: str, other: str, differences: Mapping[str, Difference], as_json: bool) -> None:
    if as_json:
        print_json(ComparisonJson.of(ours, other, differences))
        return
    table = Table("metric", Column(Text(visible(f"{ours} − {other}"))), "95 % interval", "p", box=None)
    for metric, value in differences.items():
        table.add_row(metric, f"{value.mean:+.3f}", f"{value.low:+.3f} to {value.high:+.3f}", f"{value.p_value:.4f}")
    output.print()
    output.print(table)


def _use_utf8() -> None:
    """Write UTF-8 whatever the locale says, and what it cannot spell as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _settings(**given: Any) -> Settings:
    """Read the settings, with what was given on the command line in their place."""
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("encoder", "full") not in get_args(EncoderName):
        raise typer.BadParameter(
            f"{given['encoder']} is not an encoder; choose full or instant", param_hint="--encoder"
        )
    if given.get("overload", "refuse") not in get_args(Overload):
        raise typer.BadParameter(f"{given['overload']} is neither refuse nor instant", param_hint="--overload")
    if given.get("backend", BACKENDS[0]) not in BACKENDS:
        choices = ", ".join(BACKENDS)
        raise typer.BadParameter(
            f"{given['backend']} is not a backend; choose one of {choices}", param_hint="--backend"
        )
    if "store" in given:
        given["store"] = SecretStr(given["store"])
    return read_settings().model_copy(update=given)


@contextmanager
def _open_index(settings: Settings) -> Iterator[tuple[OpenGeneration, QueryEncoder]]:
    with closing(_opened(settings)) as generation:
        yield generation, load_query_encoder(settings, generation)


def _opened(settings: Settings) -> OpenGeneration:
    """Open what is published in the store, or in the home, where one is built if there is none."""
    store, home = chosen_store(settings), Home(settings.home)
    if store is not None:
        return store.open_current()
    try:
        return home.open_current()
    except NoGenerationError:
        message = f"No index in {settings.home} yet: building one from the bundled documents."
        errors.print(Text(visible(message)))
        show_report(errors, _sync(home, [Source(seeds_folder(), is_bundled=True)], settings))
        return home.open_current()


def _publish(home: Home, store: MilvusStore, settings: Settings) -> None:
    """Publish the generation of the home in a store."""
    with (
        home.writer(wait_s=settings.wait),
        closing(store),
        closing(home.open_current()) as generation,
        TerminalProgress(errors) as progress,
    ):
        store.publish(generation, keep=settings.keep_generations, progress=progress)
        errors.print(Text(visible(f"Published {generation.name} in {store.address}")))


@contextmanager
def _writing_run(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise EvaluationError(
            f"The run {run} cannot be written: {exc.strerror or exc}. Name another file with --run."
        ) from exc


def _sync(
    store: Home,
    sources: list[Source],
    settings: Settings,
    *,
    remove: list[str] | None = None,
    allow_empty: bool = False,
    may_download: bool = False,
    cluster: ClusterSettings | None = None,
) -> SyncReport:
    for source in sources:
        source.root()  # before the model is loaded for nothing
    with TerminalProgress(errors) as progress:
        progress.start("Loading the model", None)
        encoder = load_model(settings, _model_for(store, settings), may_download=may_download)
        if cluster is not None:
            progress.start("Joining the cluster", None)
        with _engine(cluster, encoder, settings) as engine:
            return sync(
                store,
                sources,
                encoder,
                remove=remove or [],
                settings=BuildSettings(
                    keep_generations=settings.keep_generations, wait_s=settings.wait, allow_empty=allow_empty
                ),
                progress=progress,
                engine=engine,
            )


@contextmanager
def _engine(cluster: ClusterSettings | None, encoder: Encoder, settings: Settings) -> Iterator[Engine | None]:
    """Open what does the work of a build; None for this process."""
    if cluster is None:
        yield None
        return
    model = SharedModel.of(encoder, cache_folder=(settings.cache / "models").absolute(), backend=settings.backend)
    with Cluster(cluster) as opened:
        yield RayEngine(opened, model)


def _model_for(store: Home, settings: Settings) -> str:
    """Choose the model: the one asked for, else the index's own, else the default."""
    if settings.model is not None:
        return settings.model
    manifest = store.known_manifest()
    return DEFAULT_MODEL if manifest is None else manifest.model.name


def _known_sources(store: Home) -> list[Source]:
    """Return the folders and files that are synced; what was put over HTTP stays without being named."""
    manifest = store.known_manifest()
    return [record.source() for record in (manifest.sources if manifest else ()) if record.path != UPLOADS]


def _has_uploads(store: Home) -> bool:
    manifest = store.known_manifest()
    return manifest is not None and any(record.path == UPLOADS for record in manifest.sources)


def _source(path: Path, prefix: str | None, known: list[Source]) -> Source:
    source = Source(_absolute(path), prefix=prefix or "")
    if prefix is None:
        source = next((other for other in known if other.key == source.key and not other.is_bundled), source)
    return source


def _source_key(path: Path) -> str:
    return Source(_absolute(path)).key


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError) as exc:  # what no path can be called, or the home of nobody
        raise SourceError(f"No source at {path}: {exc}. Check the path.") from exc


def _refuse_unknown(removed: list[str], known: list[Source]) -> None:
    unknown = set(removed) - {source.key for source in known}
    if unknown:
        names = ", ".join(source.key for source in known) or "none"
        raise WhenceError(f"{', '.join(sorted(unknown))} is not a source of this index. Its sources: {names}")


def _print_answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_line(answer_json(answer).decode())
    else:
        show_answer(output, answer)


def _print_report(report: SyncReport, as_json: bool) -> None:
    if as_json:
        print_json(SyncReportJson.of(report))
    else:
        show_report(output, report)


def _fail(error: WhenceError, *, code: int) -> None:
    errors.print(Text(visible(f"whence: {error}"), style="red"))
    sys.exit(code)
