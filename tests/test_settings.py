"""Settings come from the environment, are checked, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from platformdirs import user_cache_path, user_data_path

from index.answers import DEFAULT_TOP_K, MAX_TOP_K
from index.errors import WhenceError
from index.generations import KEEP_GENERATIONS
from service.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHENCE_{name.upper()}", raising=False)


def test_the_defaults() -> None:
    settings = read_settings()
    assert settings.home == user_data_path("whence")
    assert settings.cache == user_cache_path("whence")
    assert (settings.model, settings.backend) == (None, "onnx")
    assert (settings.top_k, settings.min_confidence) == (DEFAULT_TOP_K, None)
    assert (settings.keep_generations, settings.wait) == (KEEP_GENERATIONS, 10.0)


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "WHENCE_HOME": "idx",
        "WHENCE_CACHE": "/var/cache/whence",
        "WHENCE_MODEL": "models/mine",
        "WHENCE_BACKEND": "torch",
        "WHENCE_TOP_K": "7",
        "WHENCE_MIN_CONFIDENCE": "0.25",
        "WHENCE_KEEP_GENERATIONS": "1",
        "WHENCE_WAIT": "0.5",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert (settings.home, settings.cache) == (Path("idx"), Path("/var/cache/whence"))
    assert (settings.model, settings.backend, settings.top_k) == ("models/mine", "torch", 7)
    assert (settings.min_confidence, settings.keep_generations, settings.wait) == (0.25, 1, 0.5)


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    unset = read_settings()
    monkeypatch.setenv(f"WHENCE_{name.upper()}", "")
    assert read_settings() == unset


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHENCE_TOP_K", "many"),
        ("WHENCE_TOP_K", "0"),
        ("WHENCE_TOP_K", str(MAX_TOP_K + 1)),
        ("WHENCE_MIN_CONFIDENCE", "1.5"),
        ("WHENCE_MIN_CONFIDENCE", "nan"),
        ("WHENCE_BACKEND", "gpu"),
        ("WHENCE_KEEP_GENERATIONS", "0"),
        ("WHENCE_WAIT", "-1"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(WhenceError, match=rf"^{name} is '{value}': .*\. Correct or unset it\.$"):
        read_settings()


def test_other_variables_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_NO_SUCH_SETTING", "1")
    assert read_settings() == Settings()


def test_every_setting_has_a_line_of_help() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description
