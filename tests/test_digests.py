"""Digests of files that are taken in pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import index.digests
from index.digests import digests_of
from index.models import sha256_of


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_the_digest_of_a_small_file_is_its_sha_256(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(index.digests, "PIECE_BYTES", 10)
    (tmp_path / "file").write_bytes(b"x" * size)
    assert digests_of([tmp_path / "file"]) == [sha256_of(tmp_path / "file")]


@pytest.mark.parametrize("read_bytes", [3, 10, 64])
def test_the_digest_of_a_large_file_is_that_of_the_digests_of_its_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(index.digests, "PIECE_BYTES", 10)
    monkeypatch.setattr(index.digests, "_READ_BYTES", read_bytes)
    for name, data in (("one", b"0123456789abcdefghijklm"), ("other", b"0123456789abcdefghij")):
        (tmp_path / name).write_bytes(data)
    first, second = sha256(b"0123456789"), sha256(b"abcdefghij")
    assert digests_of([tmp_path / "one", tmp_path / "other"]) == [
        sha256(first + second + sha256(b"klm")).hex(),
        sha256(first + second).hex(),
    ]


def test_files_keep_their_order_and_any_change_is_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.digests, "PIECE_BYTES", 4)
    paths = [tmp_path / str(number) for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes(range(number)))
    together = digests_of(paths)
    assert together == [digest for path in paths for digest in digests_of([path])]
    assert len(set(together)) == len(paths)
    for place in range(19):
        changed = bytearray(range(19))
        changed[place] ^= 1
        paths[19].write_bytes(changed)
        assert digests_of([paths[19]]) != [together[19]]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        digests_of([tmp_path / "none"])
    assert raised.value.filename == str(tmp_path / "none")
