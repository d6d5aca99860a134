"""What is deployed fits what it is made of: the image, its lock, compose, Kubernetes, and the operator's guide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_image
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from index.embeddings import Encoder
from index.generations import Generation
from index.models import DEFAULT_WEIGHTS_SHA256
from service.access import SCOPES
from service.metrics import Metrics
from service.server import SHUTDOWN_S
from service.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DEPLOYED = [ROOT / name for name in ("Dockerfile", "compose.yaml", "deploy/kubernetes.yaml", "deploy/nginx.conf")]
DOCUMENTS = [ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "docs/operations.md")]
# Of compose alone, for the name of the proxy.
OTHERS = {"WHENCE_DOMAIN"}


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of a kind in the Dockerfile."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


# The image.


def test_everything_that_the_image_copies_is_there_and_is_sent_to_its_build() -> None:
    sent = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert {"requirements.lock", "pyproject.toml", "index", "service", "seeds"} < set(copied)
    assert sorted(copied) == sorted(sent)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_stages_are_copied_from_and_built_on_stages_that_are_there() -> None:
    stages = [line.split(" AS ") for line in instructions("FROM")]
    names = [name for _, name in stages]
    assert all(base == "python:3.11-slim" or base in names for base, _ in stages)
    assert {re.search(r"--from=(\w+)", line)[1] for line in instructions("COPY") if "--from" in line} < set(names)  # type: ignore[index]
    assert names[-1] == "small"


def test_the_image_runs_as_nobody_special_and_says_whether_it_can_answer() -> None:
    assert instructions("USER") == ["10001"]
    (health,) = instructions("HEALTHCHECK")
    assert "/readyz" in health
    assert ("GET", "/readyz") in SCOPES
    assert f'whence.model.sha256="{DEFAULT_WEIGHTS_SHA256}"' in DOCKERFILE


def test_the_image_has_the_version_of_torch_that_the_project_pins() -> None:
    (pinned,) = (name for name in PROJECT["project"]["dependencies"] if name.startswith("torch=="))
    assert f"pip install $TORCH_OPTIONS {pinned}" in DOCKERFILE


def test_the_check_of_the_image_reads_the_dockerfile_as_it_is_meant() -> None:
    assert check_image.stages_for(DOCKERFILE, "small") == {"python:3.11-slim", "build", "trimmed", "runtime", "small"}
    assert check_image.stages_for(DOCKERFILE, "full") == {"python:3.11-slim", "build", "runtime", "full"}
    read = check_image.instructions(DOCKERFILE)
    assert [each.text for each in read if each.name == "RUN"] == instructions("RUN")
    assert [each.words for each in read if each.name in ("ENTRYPOINT", "CMD")] == [["whence"], ["serve"]]
    (copied,) = (each for each in read if each.options.get("from") == "trimmed")
    assert copied.words == ["/opt/whence", "/opt/whence"]
    with pytest.raises(SystemExit, match="no stage is called tiny; there are build, trimmed, runtime, full, small"):
        check_image.stages_for(DOCKERFILE, "tiny")


# What the image leaves out.


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which what the small image leaves out cannot be imported."""
    (uninstalled,) = (line for line in instructions("RUN") if line.startswith("pip uninstall"))
    for name in uninstalled.split()[3:]:
        package = tmp_path / "left-out" / name.replace("-", "_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"raise ImportError('{name} is left out')")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "left-out"), "WHENCE_HOME": str(tmp_path / "home")}


def test_indexing_and_asking_need_nothing_that_the_small_image_leaves_out(
    without_torch: dict[str, str], cache_folder: Path, encoder: Encoder
) -> None:
    environment = {**without_torch, "WHENCE_CACHE": str(cache_folder)}

    def whence(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        return whence("ask", "How many requests does Pingora handle per day?", *options)

    ran = whence("index", "seeds/rust-beyond-the-hype-cycle.md")
    assert ran.returncode == 0, ran.stderr
    ran = ask("--json")
    assert ran.returncode == 0, ran.stderr
    assert '"answered":true' in ran.stdout
    ran = ask("--backend", "torch")
    assert ran.returncode == 1
    assert "torch and sentence-transformers are not installed here" in " ".join(ran.stderr.split())


# The lock.


def locked() -> dict[str, tuple[str, str]]:
    """Return name -> version and digest."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([\w.-]+)==([\w.+]+) --hash=sha256:([0-9a-f]{64})", line) for line in lines]
    return {canonicalize_name(match[1]): (match[2], match[3]) for match in matches if match is not None}


def test_the_lock_has_everything_in_a_version_that_the_project_takes() -> None:
    versions = locked()
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(versions) == len([line for line in lines if not line.startswith("#")]) > 80
    needed = [
        Requirement(text) for text in (*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"])
    ]
    environment = {"python_version": "3.11"}
    needed = [each for each in needed if each.marker is None or each.marker.evaluate(environment)]
    missing = [
        str(each)
        for each in needed
        if each.name != "torch" and not each.specifier.contains(versions.get(canonicalize_name(each.name), ("0",))[0])
    ]
    assert missing == []
    assert "torch" not in versions


# Compose, Kubernetes and proxies.


def strings(value: Any) -> Iterator[str]:
    """Yield every text in what YAML holds."""
    if isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    else:
        yield str(value)


@pytest.mark.parametrize("path", [*DEPLOYED, *DOCUMENTS], ids=lambda path: path.name)
def test_every_setting_that_is_named_is_one(path: Path) -> None:
    known = {f"WHENCE_{name.upper()}" for name in Settings.model_fields} | OTHERS
    assert set(re.findall(r"WHENCE_[A-Z_]+", path.read_text())) - known == set()


def test_compose_is_the_service_alone_or_behind_a_proxy() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"whence", "proxy"}
    whence, proxy = services["whence"], services["proxy"]
    assert whence["read_only"] and "profiles" not in whence
    assert whence["volumes"] == ["home:/data"]
    assert instructions("VOLUME") == ["/data"]
    assert float(whence["stop_grace_period"].removesuffix("s")) > SHUTDOWN_S
    assert proxy["profiles"] == ["proxy"]
    assert (ROOT / proxy["volumes"][0].partition(":")[0]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in whence["ports"])


def test_kubernetes_runs_one_instance_with_nothing_that_it_does_not_need() -> None:
    claim, deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert pod["securityContext"]["runAsUser"] == int(instructions("USER")[0])
    assert pod["terminationGracePeriodSeconds"] > SHUTDOWN_S
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
    (container,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert ("GET", container[probe]["httpGet"]["path"]) in SCOPES
    assert container["ports"][0]["containerPort"] == int(instructions("EXPOSE")[0])
    assert service["spec"]["selector"] == spec["selector"]["matchLabels"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


# The operator's guide.


def test_every_metric_that_the_guide_watches_is_measured() -> None:
    named = set(re.findall(r"`(whence_\w+)", OPERATIONS))
    assert len(named) > 5
    text = Metrics().render(tasks={"failed": 0, "enqueued": 0}).decode()
    measured = set(re.findall(r"^# TYPE (whence_\w+)", text, re.MULTILINE))
    assert named - measured - {"whence_generation_number"} == set()
    assert "whence_generation_number" in text


def test_every_link_in_the_guides_leads_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_restore_drill_works_as_it_is_written(tmp_path: Path, cache_folder: Path, seeds: Generation) -> None:
    block = re.search(r"<!-- tested[^\n]*-->\n```console\n(.*?)```", OPERATIONS, re.DOTALL)
    assert block is not None
    whence = shutil.which("whence", path=str(Path(sys.executable).parent))
    assert whence is not None, "the command is not installed"
    environment = {
        **os.environ,
        "PATH": f"{Path(whence).parent}:{os.environ['PATH']}",
        "WHENCE_HOME": str(seeds.folder.parents[1]),
        "WHENCE_CACHE": str(cache_folder),
    }
    script = f"set -e\n{block[1]}"
    ran = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "5 documents" in ran.stdout
    assert (tmp_path / "whence.tar").stat().st_size > 100_000
