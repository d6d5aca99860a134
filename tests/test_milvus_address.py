"""The address of a store names a server and a collection, and never shows a password."""

from __future__ import annotations

import pytest

from index.errors import StoreError
from index.milvus.address import Address, parse_address
from index.milvus.collections import generation_of


def test_an_address_has_all_its_parts() -> None:
    address = parse_address("milvus://reader:p%40ss@db.example.org:19531/handbook?tls=true")
    assert address == Address("db.example.org", 19531, "handbook", "reader", "p@ss", uses_tls=True)
    assert address.uri == "https://db.example.org:19531"


def test_what_is_left_out_is_as_milvus_has_it() -> None:
    address = parse_address("milvus://localhost/docs")
    assert address == Address("localhost", 19530, "docs")
    assert address.uri == "http://localhost:19530"
    assert parse_address("milvus://[::1]/docs").uri == "http://[::1]:19530"


def test_an_address_as_text_has_no_password() -> None:
    address = parse_address("milvus://reader:geheim@db:1/docs")
    assert str(address) == "milvus://db:1/docs"
    assert "geheim" not in repr(address)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://u:geheim@db/docs", "does not begin with milvus://"),
        ("milvus://u:geheim@/docs", "names no host"),
        ("milvus://u:geheim@db:port/docs", "host or port makes no sense"),
        ("milvus://u:geheim@db:99999/docs", "host or port makes no sense"),
        ("milvus://u:geheim@db", "'' is no name of a collection"),
        ("milvus://u:geheim@db/two/parts", "'two/parts' is no name of a collection"),
        ("milvus://u:geheim@db/1st", "'1st' is no name of a collection"),
        ("milvus://u:geheim@db/docs?password=1", "all that may stand behind it is"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_its_password(text: str, reason: str) -> None:
    with pytest.raises(StoreError, match="milvus://") as refusal:
        parse_address(text)
    assert reason in str(refusal.value)
    assert "geheim" not in str(refusal.value)


def test_a_collection_tells_its_generation() -> None:
    name = "20261121T060001Z-3f9c2a"
    assert generation_of("docs_20261121T060001Z_3f9c2a", within="docs") == name
    assert generation_of("docs_20261121T060001Z_3f9c2a_files", within="docs") == name
    for other in ("docs", "docs_published", "more_docs_20261121T060001Z_3f9c2a", "docs_v2_20261121T060001Z_3f9c2a"):
        assert generation_of(other, within="docs") is None
