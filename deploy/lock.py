"""Print the exact packages of the image, each with the SHA-256 of its wheel, for `pip install --require-hashes`.

    python deploy/lock.py > requirements.lock        with the Python, on the platform, of the image

pip itself decides what to install. torch is left out: an index may offer several builds of one version, for CPUs and
for GPUs, and which of them is wanted is decided where the image is built. The Dockerfile installs the version that
pyproject.toml pins.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("torch", "whence")


def resolved() -> list[dict[str, Any]]:
    """Ask pip what it would install into an empty environment, what the build needs included."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    options = ("--dry-run", "--ignore-installed", "--quiet", "--only-binary", ":all:", "--report", "-")
    command = [sys.executable, "-m", "pip", "install", *options, str(ROOT), *build]
    report = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603 (our own arguments)
    installed: list[dict[str, Any]] = json.loads(report)["install"]
    return installed


def lines(packages: list[dict[str, Any]]) -> Iterator[str]:
    """Write each package as a requirement with its hash, by name."""
    yield f"# Python {sys.version_info.major}.{sys.version_info.minor}, {platform.machine()}"
    yield "# Made by deploy/lock.py; not to be edited. torch is not in it, see there."
    for package in sorted(packages, key=lambda package: package["metadata"]["name"].lower()):
        metadata = package["metadata"]
        if metadata["name"] not in LEFT_OUT:
            digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
            yield f"{metadata['name']}=={metadata['version']} --hash=sha256:{digest}"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lines(resolved())))
