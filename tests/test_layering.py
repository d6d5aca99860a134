"""The library does not know the application, and asking a question does not load what only a build needs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from calibrations import always_sure
from sources_in_memory import MemorySource

from index.build import sync
from index.calibration import write_calibration
from index.embeddings import Encoder
from index.generations import Home

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "sklearn", "scipy", "pandas")
ASKING = f"""
import sys
from service.cli import main
sys.argv = ["whence", "ask", "What does the red light mean?", "--json"]
try:
    main()
finally:
    print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


def imported_modules(path: Path) -> set[str]:
    """Return every module that a file imports, at its top or later."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports from a relative module"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("path", sorted((ROOT / "index").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_imports_the_application(path: Path) -> None:
    packages = {module.partition(".")[0] for module in imported_modules(path)}
    assert not packages & {"service", "typer", "rich", "pydantic", "pydantic_settings", "starlette", "fastapi"}


def test_no_modules_import_each_other_not_even_for_a_type() -> None:
    paths = {path for package in ("index", "service") for path in (ROOT / package).rglob("*.py")}
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    graph = {name: imported_modules(path) & names.keys() for name, path in names.items()}
    assert graph["index.store"] >= {"index.corpus", "index.vectors"}
    TopologicalSorter(graph).prepare()  # raises, and names them, when some form a circle


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_asking_loads_neither_torch_nor_transformers(
    is_calibrated: bool, home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [MemorySource({"router.md": "The red light means that there is no power."})], encoder)
    if is_calibrated:
        write_calibration(home.path, always_sure(home))
    done = subprocess.run(
        [sys.executable, "-c", ASKING],
        cwd=ROOT,
        env={**os.environ, "WHENCE_HOME": str(home.path), "WHENCE_CACHE": str(cache_folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert answer["passages"][0]["text"] == "The red light means that there is no power."
    assert (answer["confidence"] == 0.75) == is_calibrated
    assert done.stderr.strip() == ""


def loaded(modules: str, wanted: set[str]) -> str:
    """Tell which of some modules are there once others were loaded, in a process of its own."""
    listing = f"import sys, {modules}; print(sorted({wanted!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_the_service_loads_only_what_it_needs_to_start() -> None:
    spoken_later = {"mcp", "mcp_types", "service.mcp_http"}
    elsewhere = {*HEAVY, "pathspec", "onnx", "ray", "pymilvus", "pyarrow"}
    assert loaded("service.cli, service.server, service.app", elsewhere | spoken_later) == "[]"


def test_metrics_are_loaded_after_it_is_known_whether_processes_share_them() -> None:
    assert loaded("service.cli, service.server", {"prometheus_client"}) == "[]"
    assert loaded("service.app", {"prometheus_client"}) == "['prometheus_client']"


def test_what_is_loaded_for_good_is_not_looked_through_again() -> None:
    script = """
import gc
from service.loading import loaded_for_good
with loaded_for_good():
    was_on = gc.isenabled()
    kept = [[number] for number in range(100_000)]
print(was_on, gc.isenabled(), gc.get_freeze_count() >= len(kept))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "True", "True"]
