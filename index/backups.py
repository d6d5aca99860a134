"""Backups: a home's published generation, what was put over HTTP, its calibration and its state, in one tar file."""

from __future__ import annotations

import fcntl
import glob
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from index.calibration import CONFIDENCE, read_calibration
from index.errors import DamagedGenerationError, GenerationError
from index.generations import (
    Generation,
    Home,
    UnconfirmedError,
    put_in_place,
    sync_folder,
    sync_tree,
    unconfirmed,
    write_error,
)
from index.state import STATE, State
from index.uploads import PARTIAL_PREFIX, UPLOADS, PlannedUploads, Uploads, stored_uploads

ATTEMPTS = 5  # while documents are being replaced
PAUSE_S = 0.5  # before the second one; longer before each later one


def back_up(home: Home, path: Path) -> str:
    """Write the published generation, uploads, calibration and state of a home to a tar file, whole or not at all.

    Returns:
        The name of the generation.

    Raises:
        GenerationError: there is none, it is damaged, or the file cannot be written.
        CalibrationError: the calibration is damaged.
    """
    _refuse_folder(path)
    _refuse_home(path, home)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        _sweep(path)
        with beside.open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            name = _write(home, stream)
            stream.flush()
            os.fsync(stream.fileno())
            put_in_place(beside, path)
    except OSError as exc:
        raise _not_writable(path, exc) from exc
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return name


class _HasMovedOn(Exception):  # noqa: N818 (no error: it is tried again)
    """What was to be copied was replaced meanwhile."""


def _sweep(path: Path) -> None:
    """Remove what backups to the same file left when they were killed; one that is being written is locked."""
    for left in path.parent.glob(f".{glob.escape(path.name)}-*"):
        with suppress(BlockingIOError, FileNotFoundError), left.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _write(home: Home, stream: BinaryIO) -> str:
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        try:
            stream.seek(0)
            stream.truncate()
            return _write_once(home, stream)
        except _HasMovedOn as exc:
            reason = exc
    raise GenerationError(f"No backup was written: {reason}. Try again when fewer documents are being put.")


def _write_once(home: Home, stream: BinaryIO) -> str:
    with closing(home.open_current()) as generation, tarfile.open(fileobj=stream, mode="w") as archive:
        if (home.path / STATE).exists():
            with tempfile.TemporaryDirectory() as scratch:
                copy = _copy_of_state(home, Path(scratch))
                if home.published_name() != generation.name:
                    raise _HasMovedOn(f"{generation.name} is not the published generation any more")
                archive.add(copy, arcname=STATE)
                _add_uploads(archive, stored_uploads(Path(scratch)), home.path / UPLOADS)
        _add_calibration(archive, home)
        archive.add(generation.folder, arcname=generation.name)
        return generation.name


def _add_uploads(archive: tarfile.TarFile, stored: PlannedUploads, folder: Path) -> None:
    """Add every file of the uploads, also those that are still to be indexed."""
    names = {path.name for path in folder.glob("*") if not path.name.startswith(PARTIAL_PREFIX)}
    for name in sorted(names | {upload.file for (upload,) in stored.tries.values()}):
        try:
            archive.add(folder / name, arcname=f"{UPLOADS}/{name}")
        except FileNotFoundError as exc:
            raise _HasMovedOn(f"the file {name} of the uploads is gone") from exc


def _add_calibration(archive: tarfile.TarFile, home: Home) -> None:
    calibration = read_calibration(home.path)
    if calibration is None:
        return
    # What was checked is written, whatever takes the file's place meanwhile.
    data = calibration.as_json().encode()
    member = tarfile.TarInfo(CONFIDENCE)
    member.size, member.mtime = len(data), int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _refuse_home(path: Path, home: Home) -> None:
    if path.resolve().is_relative_to(home.path.resolve()):
        raise GenerationError(f"{path} lies in the home {home.path} itself. Write the backup somewhere else.")


def restore(home: Home, path: Path, *, wait_s: float = 10.0) -> str:
    """Publish the generation of a backup in a home, after checking every file.

    What the home holds stays there as earlier generations. Its state and its calibration are replaced only where
    there is none; but its uploads become those of the backup, as they belong to the generation.

    Returns:
        The name of the generation.

    Raises:
        GenerationError: the file is not a backup, is damaged, or the home cannot be written.
        StateError: the state of the home cannot be written.
    """
    with home.writer(wait_s=wait_s), home.building_folder() as scratch:
        try:
            _extract(path, scratch)
            name = _generation_in(scratch, path)
            if not _is_whole(home, name):
                _move_in(home, scratch, name)
            _restore_state(home, scratch)
            _restore_calibration(home, scratch)
            home.publish(name)
        except OSError as exc:
            raise write_error(home.path, exc) from exc
    return name


def _refuse_folder(path: Path) -> None:
    try:
        is_folder = not path.name or path.is_dir()
    except OSError as exc:
        raise _not_writable(path, exc) from exc
    if is_folder:
        raise GenerationError(
            f"The backup {path} cannot be written: it is a folder. Name a file: whence backup {path / 'whence.tar'}"
        )


def _not_writable(path: Path, error: OSError) -> GenerationError:
    if isinstance(error, UnconfirmedError):
        return GenerationError(unconfirmed(path, error))
    return GenerationError(f"The backup {path} cannot be written: {error.strerror or error}. Name another place.")


def _copy_of_state(home: Home, scratch: Path) -> Path:
    copy = scratch / STATE
    try:
        with closing(sqlite3.connect(home.path / STATE)) as state, closing(sqlite3.connect(copy)) as target:
            state.backup(target)
    except sqlite3.Error as exc:
        raise GenerationError(
            f"{home.path / STATE} cannot be copied: {exc}. No backup was written. Check that the file is whole, or "
            f"move it away, and that there is room in {scratch.parent}, then run the command again."
        ) from exc
    return copy


def _extract(path: Path, folder: Path) -> None:
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 (closed below; errors of opening are not those of writing)
    except OSError as exc:
        reason = exc.strerror or exc
        raise GenerationError(f"{path} cannot be read: {reason}. Name a file that whence backup wrote.") from exc
    except tarfile.TarError as exc:
        raise _not_whole(path, exc) from exc
    with archive:
        try:
            archive.extractall(folder, filter="data")
        except tarfile.TarError as exc:
            raise _not_whole(path, exc) from exc


def _generation_in(scratch: Path, path: Path) -> str:
    folders = [folder for folder in scratch.iterdir() if folder.is_dir() and folder.name != UPLOADS]
    if len(folders) != 1:
        raise GenerationError(
            f"{path} is not a backup: it holds no generation. Name a file that whence backup wrote."
        )
    try:
        Generation.open(folders[0]).close()
    except DamagedGenerationError as exc:
        raise _not_whole(path, exc) from exc
    return folders[0].name


def _not_whole(path: Path, error: Exception) -> GenerationError:
    return GenerationError(f"{path} is not a whole backup: {error}. Use another copy.")


def _is_whole(home: Home, name: str) -> bool:
    try:
        Generation.open(home.generations_path / name).close()
    except DamagedGenerationError:
        return False
    return True


def _move_in(home: Home, scratch: Path, name: str) -> None:
    """Put the generation of a backup in its place, or in that of a damaged one of the same name."""
    sync_tree(scratch)
    target = home.generations_path / name
    if target.exists():
        home.set_aside(target)
    (scratch / name).rename(target)
    sync_folder(home.generations_path)


def _restore_state(home: Home, scratch: Path) -> None:
    stored = stored_uploads(scratch)
    if (scratch / STATE).exists() and not (home.path / STATE).exists():
        sync_folder(scratch / STATE)
        (scratch / STATE).rename(home.path / STATE)
        sync_folder(home.path)
    if (home.path / STATE).exists():
        with State(home.path) as state:
            Uploads(home.path, state).restore(stored)


def _restore_calibration(home: Home, scratch: Path) -> None:
    if (scratch / CONFIDENCE).exists() and not (home.path / CONFIDENCE).exists():
        sync_folder(scratch / CONFIDENCE)
        (scratch / CONFIDENCE).rename(home.path / CONFIDENCE)
        sync_folder(home.path)
