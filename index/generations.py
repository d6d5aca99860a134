"""Generations on disk: a home holds immutable states of the index, one of them published.

    HOME/
      CURRENT                        one line: the name of the published generation
      generations/
        20261121T060001Z-3f9c2a/     whole and never changed; removed only by pruning
        .building-.../               being written; swept away by the next writer
      damaged/                       generations that failed a check, set aside until those of their time are pruned
      writer.lock  writer.json       who is writing

A generation is written in a hidden folder, checked, flushed to disk, renamed into place and only then named in
CURRENT, which is replaced by a rename too. Whatever stops a writer, readers find the last published generation
whole. They take no lock, and an open generation stays readable after it was pruned.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

from index.chunk_table import FURNITURE
from index.corpus import Corpus, DocumentRecord
from index.embeddings import Embeddings
from index.errors import DamagedGenerationError, GenerationError, NoGenerationError, WriterBusyError
from index.lexical import LexicalIndex, best_rows
from index.manifest import BUILDING_PREFIX, Manifest, check_files, read_manifest
from index.sequences import TermSequences
from index.sketches import Sketches
from index.store import CANDIDATES, Excerpt, union
from index.token_table import Adaptation
from index.vectors import ChunkVectors, SentenceVectors, open_array
from index.vocabulary import LexicalQuery

logger = logging.getLogger(__name__)

ADAPTATION = "instant"
VECTORS = "vectors.faiss"
SKETCHES = "sketches.faiss"
DAMAGED = "damaged"
KEEP_GENERATIONS = 3


class Generation:
    """An open generation. It is read-only, and stays readable until it is closed, even when it is pruned.

    Attributes:
        manifest: what it says of itself.
        corpus: documents, chunks and their text.
        vectors: dense search over chunks.
        sentences: sentence embeddings, for rescoring.
        lexical: keyword search over chunks.
        sequences: the terms of chunks in their order, for rescoring and to find chunks that say the same.
        furniture: bool, shape (chunks,): which chunks are page furniture.
        adaptation: of the instant encoder to this corpus; None for a model that has no instant encoder.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.vectors = ChunkVectors.load(folder / VECTORS)
        if manifest.dense.oversampling:
            self.vectors.sketches = Sketches.load(folder / SKETCHES, manifest.dense)
        self.sentences = SentenceVectors.load(folder)
        self.lexical = LexicalIndex.load(folder / "lexical")
        self.sequences = TermSequences.load(folder / "sequences", self.sentences.starts)
        self.furniture: NDArray[np.bool_] = open_array(folder / FURNITURE)
        # As the manifest says: in a folder that is pruned in this moment nothing can be looked for.
        is_adapted = any(name.startswith(f"{ADAPTATION}/") for name in manifest.files)
        self.adaptation = Adaptation.load(folder / ADAPTATION) if is_adapted else None
        self.corpus = Corpus.load(folder)

    @classmethod
    def open(cls, folder: Path) -> Generation:
        """Open a generation after checking every file against its manifest.

        Raises:
            DamagedGenerationError: a file is missing, truncated or altered; the message names it.
            GenerationError: the format is another version's.
        """
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        generation = cls(folder, manifest)
        try:
            generation.check_counts()
        except DamagedGenerationError:
            generation.close()
            raise
        return generation

    @property
    def name(self) -> str:
        """Of the generation."""
        return self.manifest.name

    @cached_property
    def document_records(self) -> list[DocumentRecord]:
        """All documents in order of doc_id, read once: filters look at every one of them."""
        return list(self.corpus.documents())

    @property
    def centroid(self) -> Embeddings:
        """See `ChunkVectors.centroid`."""
        return self.vectors.centroid

    def excerpt(
        self, query: LexicalQuery, embedding: Embeddings, *, allowed: NDArray[np.bool_] | None = None
    ) -> Excerpt:
        """See `index.store.OpenGeneration.excerpt`."""
        scores = self.lexical.scores(query)
        asked = self.vectors.query(embedding)
        nearest, _ = asked.search(top_k=CANDIDATES, allowed=allowed)
        rows = union(nearest, best_rows(scores, CANDIDATES, allowed))
        return Excerpt(
            rows, asked.similarities(rows), scores.take(rows), self.sentences, self.sequences, self.furniture
        )

    def open_corpus(self) -> Corpus:
        """Open the corpus once more, for another thread; whoever asks for it closes it."""
        return Corpus.load(self.folder)

    def check_counts(self) -> None:
        """Compare the counts of all parts.

        Raises:
            DamagedGenerationError: two parts disagree.
        """
        manifest = self.manifest
        expected = (manifest.documents, manifest.chunks, manifest.sentences)
        try:
            counts = self.corpus.counts()
        except sqlite3.DatabaseError as exc:
            raise DamagedGenerationError(f"corpus.sqlite is not readable: {exc}") from exc
        chunks = {
            VECTORS: len(self.vectors),
            **({SKETCHES: len(self.vectors.sketches)} if self.vectors.sketches else {}),
            "lexical": len(self.lexical),
            FURNITURE: len(self.furniture),
            "sequences/shingles.npy": len(self.sequences.shingle_counts),
        }
        if counts != expected:
            raise DamagedGenerationError(f"corpus.sqlite holds {counts}, the manifest says {expected}")
        for part, count in chunks.items():
            if count != manifest.chunks:
                raise DamagedGenerationError(f"{part} holds {count} chunks, the manifest says {manifest.chunks}")
        if len(self.sequences) != manifest.chunks + manifest.sentences:
            raise DamagedGenerationError(
                f"sequences holds {len(self.sequences)} parts, the manifest says {manifest.chunks} chunks and "
                f"{manifest.sentences} sentences"
            )
        if len(self.sentences) != manifest.sentences:
            raise DamagedGenerationError(
                f"sentences.npy holds {len(self.sentences)} sentences, the manifest says {manifest.sentences}"
            )

    def close(self) -> None:
        """Close its files."""
        self.corpus.close()


class Home:
    """A folder with generations.

    Args:
        path: need not exist until something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generations_path = path / "generations"
        self._lock = filelock.FileLock(path / "writer.lock")

    def published_name(self) -> str | None:
        """Return the name in CURRENT, None when nothing has been published."""
        try:
            return (self.path / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise GenerationError(f"{self.path / 'CURRENT'} cannot be read: {exc}") from exc

    def folder(self, name: str) -> Path:
        """Return the folder of a generation.

        Raises:
            GenerationError: there is no such generation.
        """
        for folder in self._folders():
            if folder.name == name:
                return folder
        raise GenerationError(f"There is no generation {name!r} in {self.path}. List them: whence generations")

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all whole-looking generations, newest first."""
        manifests = []
        for folder in self._folders():
            try:
                manifests.append(read_manifest(folder))
            except GenerationError as error:
                logger.warning("generation %s: %s", folder.name, error)
        return sorted(manifests, key=lambda manifest: (manifest.number, manifest.name), reverse=True)

    def known_manifest(self) -> Manifest | None:
        """Return the manifest of the published generation, or else the newest that is readable; None without any.

        Raises:
            GenerationError: see `refuse_other_format`.
        """
        self.refuse_other_format()
        published = self.published_name()
        return min(self.manifests(), key=lambda manifest: manifest.name != published, default=None)

    def refuse_other_format(self) -> None:
        """Leave alone what another version of Whence writes to.

        Raises:
            GenerationError: the published generation has another format version; or, where none is published, one
                of those from the last second in which one was written.
        """
        names = [folder.name for folder in self._folders()]
        mark = self.published_name() or max(names, default="").partition("-")[0]
        for name in names:
            if not name.startswith(mark):
                continue
            with suppress(DamagedGenerationError):
                read_manifest(self.generations_path / name)

    def open_current(self) -> Generation:
        """Open the published generation; if it is damaged, set it aside and open the newest good one.

        Raises:
            NoGenerationError: nothing has been published.
            DamagedGenerationError: no generation is whole.
            GenerationError: see `refuse_other_format`.
        """
        name = self.published_name()
        if name is None:
            self.refuse_other_format()
            if self.manifests():
                return self._open_newest_good(None, DamagedGenerationError("CURRENT is missing"))
            raise NoGenerationError(
                f"No index in {self.path} (no CURRENT file). Build one: whence index PATH --home {self.path}"
            )
        try:
            return self._open(name)
        except DamagedGenerationError as error:
            if self.published_name() != name:
                # Not damaged but pruned while it was being opened; another one has long been published.
                return self.open_current()
            return self._open_newest_good(name, error)

    def publish(self, name: str) -> None:
        """Make a generation the one that readers open, by one rename.

        Raises:
            GenerationError: there is no such generation, or CURRENT cannot be written.
        """
        self.folder(name)
        try:
            replace_file(self.path / "CURRENT", name + "\n")
        except OSError as exc:
            raise write_error(self.path, exc) from exc

    def prune(self, keep: int = KEEP_GENERATIONS) -> list[str]:
        """Remove generations beyond the newest `keep`, never the published one; the writer's lock must be held.

        Those whose manifest is damaged have no place in that order, and are set aside. What was set aside goes when
        no generation is left that was there at the time.

        Returns:
            The names of those removed.
        """
        self._set_aside_others(read_manifest)
        removed: list[str] = []
        for name in self.surplus(keep):
            # Renamed first: a generation that is partly removed must not look whole to anyone.
            doomed = self.generations_path / f"{BUILDING_PREFIX}pruned-{name}"
            try:
                (self.generations_path / name).rename(doomed)
            except OSError as exc:
                # What was published before this stays published; whoever prunes next tries again.
                logger.warning("generation %s could not be removed: %s", name, exc)
                continue
            shutil.rmtree(doomed, ignore_errors=True)
            removed.append(name)
        self._prune_damaged()
        return removed

    def surplus(self, keep: int = KEEP_GENERATIONS) -> list[str]:
        """Return the generations beyond the newest `keep` but for the published one: none, once they are pruned."""
        published = self.published_name()
        names = [manifest.name for manifest in self.manifests()]
        return [name for name in names[max(1, keep) :] if name != published]

    def _prune_damaged(self) -> None:
        """Remove what was set aside before the oldest generation was written: deleted means gone, there too."""
        oldest = min((manifest.number for manifest in self.manifests()), default=0)
        for folder in (self.path / DAMAGED).glob("*-*-*"):
            newest = folder.name.rsplit("-", 2)[1]  # of the others when it was set aside
            if newest.isdecimal() and int(newest) < oldest:
                shutil.rmtree(folder, ignore_errors=True)

    def roll_back(self, name: str | None = None, *, wait_s: float = 10.0) -> str:
        """Publish an earlier generation, or a later one again, after checking that it is whole.

        Args:
            name: of the generation; None for the parent of the published one.
            wait_s: see `writer`.

        Returns:
            The name of the generation that is published now.

        Raises:
            GenerationError: there is no such generation, or it is damaged.
        """
        with self.writer(wait_s=wait_s):
            name = name or self._parent_of_published()
            Generation.open(self.folder(name)).close()
            self.publish(name)
            return name

    @contextmanager
    def writer(self, *, wait_s: float = 10.0) -> Iterator[None]:
        """Hold the home's only writer's lock; it ends with the process, however that ends.

        Within the block the same home may ask for it again.

        Raises:
            WriterBusyError: another process still writes after `wait_s` seconds; the message tells which.
            GenerationError: the home cannot be written; or see `refuse_other_format`.
        """
        self.refuse_other_format()
        is_outermost = not self._lock.is_locked
        try:
            self.generations_path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=wait_s)
        except filelock.Timeout as exc:
            raise WriterBusyError(
                f"{self._writer()} is writing to {self.path}. Try again when it is done, or wait longer: "
                "--wait SECONDS"
            ) from exc
        except OSError as exc:
            raise write_error(self.path, exc) from exc
        try:
            if is_outermost:
                self._take_over()
            yield
        finally:
            if is_outermost:
                with suppress(OSError):
                    (self.path / "writer.json").unlink(missing_ok=True)
            self._lock.release()

    @contextmanager
    def building_folder(self) -> Iterator[Path]:
        """Make a hidden folder to write a generation in; what is still in it at the end is removed.

        The writer's lock must be held.

        Raises:
            GenerationError: the home cannot be written.
        """
        folder = self.generations_path / f"{BUILDING_PREFIX}{time.time_ns()}"
        try:
            folder.mkdir()
        except OSError as exc:
            raise write_error(self.path, exc) from exc
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _open(self, name: str) -> Generation:
        try:
            folder = self.folder(name)
        except GenerationError as exc:
            raise DamagedGenerationError(f"CURRENT names it, but {self.generations_path} does not hold it") from exc
        return Generation.open(folder)

    def _open_newest_good(self, damaged: str | None, error: DamagedGenerationError) -> Generation:
        what = str(error) if damaged is None else f"generation {damaged} is damaged: {error}"
        for manifest in self.manifests():
            if manifest.name == damaged:
                continue
            try:
                generation = self._open(manifest.name)
            except GenerationError as exc:
                logger.warning("generation %s: %s", manifest.name, exc)
                continue
            logger.error("%s; %s serves instead", what, manifest.name)
            self._replace(damaged, manifest.name)
            return generation
        raise DamagedGenerationError(
            f"In {self.path}, {what}. No other one is whole. "
            f"Build it anew from its sources: whence index PATH --home {self.path}, or restore a backup: "
            "whence restore FILE"
        ) from error

    def _parent_of_published(self) -> str:
        published = self.published_name()
        if published is None:
            raise NoGenerationError(f"No index in {self.path}, so there is nothing to roll back.")
        parent = read_manifest(self.folder(published)).parent
        if parent is None or not self._holds(parent):
            raise GenerationError(
                f"The generation before {published} is not there any more. Choose one: whence generations"
            )
        return parent

    def set_aside(self, folder: Path) -> None:
        """Move a damaged generation out of the way; the writer's lock must be held."""
        others = [manifest.number for manifest in self.manifests() if manifest.name != folder.name]
        (self.path / DAMAGED).mkdir(exist_ok=True)
        folder.rename(self.path / DAMAGED / f"{folder.name}-{max(others, default=0)}-{time.time_ns()}")

    def set_aside_damaged(self) -> None:
        """Check every file of all generations but the published one, and move the damaged ones out of the way.

        The writer's lock must be held.
        """
        self._set_aside_others(lambda folder: Generation.open(folder).close())

    def _set_aside_others(self, check: Callable[[Path], object]) -> None:
        """Set aside what fails a check and is not published; where that is not possible it stays."""
        published = self.published_name()
        for folder in self._folders():
            if folder.name == published or not _is_damaged(folder, check):
                continue
            try:
                self.set_aside(folder)
            except OSError as exc:
                logger.warning("generation %s could not be set aside: %s", folder.name, exc)

    def _replace(self, damaged: str | None, replacement: str) -> None:
        """Set a damaged generation aside and publish its replacement, unless a writer is at work."""
        try:
            with self.writer(wait_s=0):
                if self.published_name() != damaged:
                    return
                self.publish(replacement)
                if damaged is not None and self._holds(damaged):
                    self.set_aside(self.folder(damaged))
        except (GenerationError, OSError) as exc:
            logger.warning("generation %s could not be set aside: %s", damaged, exc)

    def _folders(self) -> list[Path]:
        try:
            folders = sorted(self.generations_path.iterdir())
            return [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise GenerationError(
                f"{self.generations_path} cannot be read: {exc.strerror or exc}. It must be a folder that this user "
                "may read: check the permissions, or name another home: --home PATH"
            ) from exc

    def _holds(self, name: str) -> bool:
        return name in [folder.name for folder in self._folders()]

    def _take_over(self) -> None:
        """Clean up after writers that were stopped, which may give room, and say who writes now."""
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now().isoformat(timespec="seconds")}
        try:
            self._sweep()
            (self.path / "writer.json").write_text(json.dumps(note), encoding="utf-8")
        except OSError as exc:
            raise write_error(self.path, exc) from exc

    def _writer(self) -> str:
        try:
            note = json.loads((self.path / "writer.json").read_text(encoding="utf-8"))
            return f"Process {note['pid']} on {note['host']} (since {note['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "Another process"

    def _sweep(self) -> None:
        """Remove what writers that were stopped have left; only called under the lock."""
        for path in self.generations_path.glob(f"{BUILDING_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.path.glob(".CURRENT-*"):
            path.unlink(missing_ok=True)


def _is_damaged(folder: Path, check: Callable[[Path], object]) -> bool:
    try:
        check(folder)
    except DamagedGenerationError as exc:
        logger.error("generation %s is damaged: %s", folder.name, exc)
        return True
    except GenerationError:
        # Of another format version: somebody else's, and left alone.
        return False
    return False


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


class UnconfirmedError(OSError):
    """A file was replaced, but the disk has not confirmed it: after a power cut the one before may be back."""


def replace_file(path: Path, text: str) -> None:
    """Write a file anew by one rename; it is on the disk when this returns, and untouched when it fails.

    Raises:
        UnconfirmedError: it was replaced, but the folder cannot be flushed.
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        for left in path.parent.glob(f".{path.name}-*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(beside, path)
    except UnconfirmedError:
        raise
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def put_in_place(beside: Path, path: Path) -> None:
    """Rename a file that was flushed to the one it takes the place of, and flush that, too.

    Raises:
        UnconfirmedError: it was replaced, but the folder cannot be flushed.
        OSError: it cannot be replaced.
    """
    beside.replace(path)
    try:
        sync_folder(path.resolve().parent)
    except OSError as exc:
        raise UnconfirmedError(exc.errno, exc.strerror) from exc


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below a folder, and itself, to disk."""
    for path in sorted(folder.rglob("*")):
        sync_folder(path)
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    """Flush one folder, or one file, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: Exception) -> GenerationError:
    """Say that the home cannot be written, and that nothing was lost."""
    if isinstance(error, UnconfirmedError):
        return GenerationError(unconfirmed(path, error))
    return GenerationError(
        f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. The published index is untouched. "
        "Make room or check the permissions, then run the command again."
    )


def unconfirmed(path: Path, error: UnconfirmedError) -> str:
    """Say that something was replaced and may not outlive a power cut."""
    return (
        f"{path} was written, but the disk did not confirm it: {error.strerror}. It is in use; after a power cut "
        "what was there before may be back. Check the disk, then run the command again."
    )
