"""Build the image without a container engine and check what it promises; as root, on Linux.

    apt-get install debootstrap
    python deploy/check_image.py                           the small image
    python deploy/check_image.py --target full --folder /var/tmp/whence-image
    python deploy/check_image.py --build-arg TORCH_OPTIONS="--index-url ADDRESS" --readable /srv/wheels

Each instruction of the Dockerfile is carried out by itself, in a root file system that debootstrap makes in place of
the base image. Stages are layers of overlayfs, as in an engine, so that their sizes can be told. What pip is told on
this machine (PIP_*, certificates, and its files that --readable names) it is told inside, too. Then, without a
network, as the user of the image and with a root file system that cannot be written: a key is made, documents are
indexed, the service is started, its health is checked, a question is asked, and it is stopped.

Mounts are made in a namespace of this process alone and end with it. Nothing is left outside of the folder.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = "bookworm"  # the Debian whose Python is the one of the base image, 3.11
PACKAGES = ("python3.11", "python3.11-venv")
PORT = 8000
STARTING_S = 120.0
STOPPING_S = 40.0
QUESTION = "How much memory did Pingora save?"
SYSTEM_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = re.compile(r"PIP_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy", re.IGNORECASE)

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


# The Dockerfile


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as RUN, with what stands behind it."""

    name: str
    text: str

    @property
    def options(self) -> dict[str, str]:
        """What stands as `--name=value` at the beginning."""
        return dict(re.findall(r"--(\w+)=(\S+)", self.text))

    @property
    def words(self) -> list[str]:
        """The words without options; of a JSON list its elements."""
        if self.text.startswith("["):
            listed: list[str] = json.loads(self.text)
            return listed
        return [word for word in shlex.split(self.text) if not word.startswith("--")]


def instructions(dockerfile: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile in their order."""
    without_comments = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)
    joined = without_comments.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    return [Instruction(*re.split(r"\s+", line, maxsplit=1)) for line in lines]


@dataclass(frozen=True)
class Stage:
    """What instructions have made so far.

    Attributes:
        name: by which other stages name it.
        layers: folders of overlayfs, the topmost first.
        environment: of the commands inside.
        workdir: of the commands inside.
        user: as whom they run, by number.
        said: the last text of each instruction that is for those who run the image, such as LABEL and CMD.
    """

    name: str
    layers: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    workdir: str = "/"
    user: int = 0
    said: Mapping[str, Instruction] = field(default_factory=dict)


class Builder:
    """Carries out a Dockerfile.

    Args:
        folder: for the layers; on a file system that overlayfs can lie on.
        base: root file system that stands for the base image.
        arguments: of the build, over those of the Dockerfile.
        readable: paths of this machine that can be read inside while it builds, where they are here.
    """

    def __init__(self, folder: Path, base: Path, *, arguments: Mapping[str, str], readable: Sequence[Path]) -> None:
        self._folder = folder
        self._base = base
        self._arguments = arguments
        self._readable = readable
        self.stages: dict[str, Stage] = {}

    def build(self, dockerfile: str, target: str) -> Stage:
        """Make a stage with those that it is made of."""
        stage: Stage | None = None
        needed = stages_for(dockerfile, target)
        for instruction in instructions(dockerfile):
            if instruction.name == "FROM":
                base, _, name = instruction.words
                stage = self._begin(base, name) if name in needed else None
            elif stage is not None:
                tell(f"{stage.name}: {instruction.name} {instruction.text[:100]}")
                stage = self._after(stage, instruction)
                self.stages[stage.name] = stage
        return self.stages[target]

    def _begin(self, base: str, name: str) -> Stage:
        layer = self._folder / "layers" / name
        layer.mkdir(parents=True)
        before = self.stages.get(base) or Stage(base, (self._base,))
        tell(f"{name}: FROM {base}")
        self.stages[name] = replace(before, name=name, layers=(layer, *before.layers))
        return self.stages[name]

    def _after(self, stage: Stage, instruction: Instruction) -> Stage:
        match instruction.name:
            case "RUN":
                with self.mounted(stage) as root, self._building(root):
                    ran = inside(root, ["/bin/sh", "-c", instruction.text], stage=stage, more=_passed_on())
                    if ran.returncode:
                        raise SystemExit(f"exit code {ran.returncode} of: RUN {instruction.text}\n{ran.stdout}")
            case "COPY":
                self._copy(stage, instruction)
            case "WORKDIR":
                with self.mounted(stage) as root:
                    _within(root, instruction.text).mkdir(parents=True, exist_ok=True)
                return replace(stage, workdir=instruction.text)
            case "ENV" | "ARG":
                pairs = dict(word.partition("=")[::2] for word in instruction.words)
                if instruction.name == "ARG":
                    pairs |= {name: self._arguments[name] for name in pairs.keys() & self._arguments.keys()}
                return replace(stage, environment={**stage.environment, **_expanded(pairs, stage.environment)})
            case "USER":
                return replace(stage, user=int(instruction.text))
            case "LABEL" | "VOLUME" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                return replace(stage, said={**stage.said, instruction.name: instruction})
            case name:
                raise SystemExit(f"{name} is not known here; teach it to {Path(__file__).name}")
        return stage

    def _copy(self, stage: Stage, instruction: Instruction) -> None:
        *sources, target = instruction.words
        origin = instruction.options.get("from")
        with self.mounted(stage) as root:
            place = _within(root, os.path.join(stage.workdir, target))  # noqa: PTH118 (inside, not here)
            if origin is None:
                for source in sources:
                    _copy_from_here(ROOT / source, place / source if target.endswith("/") else place)
                return
            with self.mounted(self.stages[origin]) as other:
                (source,) = sources
                place.mkdir(parents=True, exist_ok=True)
                run("cp", "--archive", f"{_within(other, source)}/.", str(place))

    @contextmanager
    def mounted(self, stage: Stage, *, read_only: bool = False) -> Iterator[Path]:
        """Show a stage as one file system."""
        upper, *lower = stage.layers
        scratch = tempfile.mkdtemp(dir=self._folder)
        root, work = Path(scratch, "root"), Path(scratch, "work")
        root.mkdir()
        work.mkdir()
        names = ":".join(map(str, lower))
        options = f"lowerdir={names},upperdir={upper},workdir={work}"
        if read_only:
            options = f"ro,lowerdir={upper}:{names}"
        with mount("-t", "overlay", "overlay", "-o", options, str(root)):
            yield root

    @contextmanager
    def _building(self, root: Path) -> Iterator[None]:
        """Let commands inside reach the network, and what of this machine they may read."""
        resolving = root / "etc" / "resolv.conf"
        resolving.write_bytes(Path("/etc/resolv.conf").read_bytes())
        with _mounts([*_system(root), *_bound(root, [path for path in self._readable if path.exists()])]):
            yield
        resolving.write_bytes(b"")
        for path in reversed(self._readable):  # where nothing but a place for the mount was made
            place = _within(root, str(path))
            place.rmdir() if place.is_dir() and not any(place.iterdir()) else None


def stages_for(dockerfile: str, target: str) -> set[str]:
    """Return a stage with all stages and base images that it is made of."""
    below: dict[str, set[str]] = {}
    name = ""
    for instruction in instructions(dockerfile):
        if instruction.name == "FROM":
            base, _, name = instruction.words
            below[name] = {base}
        elif "from" in instruction.options:
            below[name].add(instruction.options["from"])
    if target not in below:
        raise SystemExit(f"no stage is called {target}; there are {', '.join(below)}")
    needed, left = set(), {target}
    while left:
        needed |= left
        left = {each for name in left for each in below.get(name, ())} - needed
    return needed


def _expanded(pairs: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: re.sub(r"\$(\w+)", lambda found: environment.get(found[1], ""), value) for name, value in pairs.items()
    }


def _passed_on() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}


def _copy_from_here(source: Path, place: Path) -> None:
    """Copy what `.dockerignore` lets through; a test of the suite compares it with what is copied."""
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)


# Mounts and commands


def _within(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


@contextmanager
def mount(*arguments: str) -> Iterator[None]:
    """Mount something; the last argument is where."""
    run("mount", *arguments)
    try:
        yield
    finally:
        run("umount", "--recursive", arguments[-1])


@contextmanager
def _mounts(wanted: Sequence[Sequence[str]]) -> Iterator[None]:
    if not wanted:
        yield
        return
    with mount(*wanted[0]), _mounts(wanted[1:]):
        yield


def _system(root: Path) -> list[list[str]]:
    """Say how to mount what every container has."""
    return [["-t", "proc", "proc", str(root / "proc")], ["--rbind", "/dev", str(root / "dev")]]


def _bound(root: Path, paths: Sequence[Path]) -> list[list[str]]:
    for path in paths:
        place = _within(root, str(path))
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    return [["--bind", "-o", "ro", str(path), str(_within(root, str(path)))] for path in paths]


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Make a folder, and remove it at the end, unless something is still mounted in it."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="whence-image-")).resolve()
    try:
        yield folder
    finally:
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        left = [place for place in mounted if Path(place).is_relative_to(folder)]
        if left:
            tell(f"{folder} is left, because it could not be unmounted: {', '.join(left)}")
        else:
            run("rm", "--recursive", "--one-file-system", str(folder))


def run(*command: str) -> str:
    """Run a command of this machine; returns what it printed."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    if ran.returncode:
        raise SystemExit(f"exit code {ran.returncode} of: {shlex.join(command)}\n{ran.stderr}")
    return ran.stdout


def _entering(root: Path, command: Sequence[str], stage: Stage) -> list[str]:
    """Return the command that runs another inside, as the user and in the folder of the stage."""
    script = 'cd "$0" && exec "$@"'
    dropped = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"] if stage.user else []
    return [
        *("chroot", f"--userspec={stage.user}:{stage.user}", "--groups=", str(root)),
        *dropped,
        *("/bin/sh", "-c", script, stage.workdir, *command),
    ]


def inside(
    root: Path, command: Sequence[str], *, stage: Stage, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a stage and wait for it; what it prints, errors too, is in `stdout`."""
    return subprocess.run(  # noqa: S603 (what the Dockerfile says)
        _entering(root, command, stage),
        env={**stage.environment, **(more or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def unshare(flags: int) -> None:
    """Leave namespaces of the machine for ones of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise SystemExit(f"cannot leave the namespaces: {os.strerror(ctypes.get_errno())}; run this as root")


def unplug() -> None:
    """Leave the network: nothing is reached from here on but this process's own loopback address."""
    unshare(_CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP, b""))


# What is checked


class Checks:
    """Prints what was checked, and remembers whether all of it held."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def check(self, holds: bool, what: str, found: object = "") -> None:
        """Print whether something holds, and what was found."""
        print(f"{'ok  ' if holds else 'FAIL'}  {what}{f': {found}' if found != '' else ''}", flush=True)
        if not holds:
            self.failed.append(what)


def tell(text: str) -> None:
    """Say what is done, beside what is checked."""
    print(f"      {text}", file=sys.stderr, flush=True)


def megabytes(path: Path) -> int:
    """Return what a folder takes on the disk."""
    return int(run("du", "--summarize", "--one-file-system", "--block-size=1M", str(path)).split()[0])


def check_contents(checks: Checks, builder: Builder, stage: Stage, dockerfile: str) -> None:
    """Check what lies in the image, before anything runs."""
    with builder.mounted(stage) as root:
        cache = _within(root, stage.environment["WHENCE_CACHE"])
        exported = sorted(path for path in cache.rglob("*") if path.is_file())
        checks.check(any(path.suffix == ".onnx" for path in exported), "the model was exported", len(exported))
        readable = all(path.stat().st_mode & 0o004 for path in exported)
        checks.check(readable, "everyone can read it")
        own = run("find", str(_within(root, "/opt/whence")), "!", "-uid", "0").splitlines()
        checks.check(not own, "what it runs belongs to root")
        passwd = (root / "etc" / "passwd").read_text()
        checks.check(
            f":{stage.user}:{stage.user}:" in passwd and stage.user > 0, "its user is nobody special", stage.user
        )
        names = {path.name.lower() for path in _within(root, "/opt/whence").glob("lib/python3*/site-packages/*")}
        left_out = re.search(r"pip uninstall --yes (.+)", dockerfile)
        gone = left_out[1].split() if left_out and stage.name == "small" else []
        checks.check(not names & set(gone), "what it leaves out is not there", ", ".join(gone) or "nothing")
        checks.check(not [name for name in names if name.startswith("nvidia")], "no GPU libraries")
        left = [name for name in ("root/.cache/pip", "src", "tmp/*") if list(root.glob(name))]
        checks.check(not left, "no sources and nothing of the build are left", ", ".join(left))
    for name in [each for each in builder.stages if builder.stages[each].layers[0] in stage.layers]:
        checks.check(True, f"size of the layers of {name}", f"{megabytes(builder.stages[name].layers[0])} MB")


def check_running(checks: Checks, builder: Builder, stage: Stage, volume: Path) -> None:
    """Check what the image does: unplugged, as its user, with a root file system that cannot be written."""
    volume.mkdir()
    os.chown(volume, stage.user, stage.user)
    with builder.mounted(stage, read_only=True) as root:
        data = stage.said["VOLUME"].words[0]
        wanted = [*_system(root), ["--bind", str(volume), str(_within(root, data))]]
        wanted.append(["-t", "tmpfs", "tmpfs", str(root / "tmp")])
        with _mounts(wanted):
            _check_confined(checks, root, stage, data)
            key = _check_commands(checks, root, stage)
            _check_service(checks, root, stage, key)
    checks.check((volume / "CURRENT").is_file(), "the index lies in the volume", f"{megabytes(volume)} MB")


def _check_confined(checks: Checks, root: Path, stage: Stage, data: str) -> None:
    for place in ("/", "/opt/whence", "/home/whence", "/etc"):
        ran = inside(root, ["touch", f"{place}/x"], stage=stage)
        checks.check(ran.returncode != 0, f"{place} cannot be written")
    for place in (data, "/tmp"):  # noqa: S108 (inside)
        ran = inside(root, ["sh", "-c", f"touch {place}/x && rm {place}/x"], stage=stage)
        checks.check(ran.returncode == 0, f"{place} can be written")
    script = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=2)"
    ran = inside(root, ["python", "-c", script], stage=stage)
    checks.check("unreachable" in ran.stdout, "there is no network")
    status = inside(root, ["cat", "/proc/self/status"], stage=stage).stdout
    checks.check("CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status, "it has no privileges")


def _check_commands(checks: Checks, root: Path, stage: Stage) -> str:
    entry = stage.said["ENTRYPOINT"].words
    ran = inside(root, [*entry, *stage.said["CMD"].words], stage=stage)
    refused = ran.returncode == 1 and "keys create" in ran.stdout
    checks.check(refused, "without a key it does not listen to other machines")
    ran = inside(root, [*entry, "keys", "create", "--name", "check"], stage=stage)
    key = re.search(r"whence_\S+", ran.stdout)
    checks.check(key is not None, "a key is made", ran.stdout[-200:] if key is None else "")
    begun = time.monotonic()
    ran = inside(root, [*entry, "ask", QUESTION, "--json"], stage=stage)
    answered = '"answered":true' in ran.stdout
    checks.check(answered, "documents are indexed and a question answered", f"{time.monotonic() - begun:.1f} s")
    labels = dict(word.partition("=")[::2] for word in stage.said["LABEL"].words)
    checks.check(labels["whence.model.sha256"] in ran.stdout, "the answer names the model that the label names")
    if not answered:
        tell(ran.stdout[-2_000:])
    return key[0] if key else ""


def _check_service(checks: Checks, root: Path, stage: Stage, key: str) -> None:
    checks.check(int(stage.said["EXPOSE"].text) == PORT, "its port is exposed", PORT)
    health = json.loads(stage.said["HEALTHCHECK"].text.partition("CMD ")[2])
    checks.check(inside(root, health, stage=stage).returncode != 0, "its health check fails while nothing is served")
    command = [*stage.said["ENTRYPOINT"].words, *stage.said["CMD"].words]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 (what the Dockerfile says)
            _entering(root, command, stage), env=dict(stage.environment), stdout=log, stderr=log
        )
        try:
            begun = time.monotonic()
            is_healthy = False
            while not is_healthy and process.poll() is None and time.monotonic() - begun < STARTING_S:
                is_healthy = inside(root, health, stage=stage).returncode == 0
            checks.check(is_healthy, "its health check holds while it serves", f"{time.monotonic() - begun:.1f} s")
            _check_answers(checks, root, stage, key)
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOPPING_S)
            checks.check(code == 0, "it ends when it is told to", f"exit code {code}")
        finally:
            process.kill()
            process.wait()
            if checks.failed:
                log.seek(0)
                tell(log.read().decode(errors="replace")[-3_000:])


def _check_answers(checks: Checks, root: Path, stage: Stage, key: str) -> None:
    script = (
        "import json, sys, urllib.parse, urllib.request as web\n"
        "address = f'http://127.0.0.1:{sys.argv[1]}/v1/ask?' + urllib.parse.urlencode({'q': sys.argv[2]})\n"
        "request = web.Request(address, headers={'Authorization': f'Bearer {sys.argv[3]}'} if sys.argv[3] else {})\n"
        "print(json.load(web.urlopen(request))['answer']['text'])\n"
    )
    ran = inside(root, ["python", "-c", script, str(PORT), QUESTION, key], stage=stage)
    checks.check(ran.returncode == 0, "a question is answered over HTTP", ran.stdout.strip()[-120:])
    ran = inside(root, ["python", "-c", script, str(PORT), QUESTION, ""], stage=stage)
    checks.check("401" in ran.stdout, "and without a key it is not")


def main() -> None:
    """Read the command line, build and check; exit code 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="small", help="stage of the Dockerfile (default: small)")
    parser.add_argument("--folder", type=Path, help="for all that is made, emptied at the end (default: a new one)")
    parser.add_argument("--base", type=Path, help="root file system to begin with, instead of making one")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="of Debian, for debootstrap")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--readable", type=Path, action="append", default=[], help="path that pip reads, such as its files"
    )
    args = parser.parse_args()
    unshare(_CLONE_NEWNS)
    run("mount", "--make-rprivate", "/")
    checks = Checks()
    with scratch_folder(args.folder) as folder:
        base = args.base or _debian(folder / "base", args.mirror)
        arguments = dict(each.partition("=")[::2] for each in args.build_arg)
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        builder = Builder(folder, base.resolve(), arguments=arguments, readable=args.readable)
        stage = builder.build(dockerfile, args.target)
        checks.check(True, f"every instruction of the stage {args.target} was carried out")
        check_contents(checks, builder, stage, dockerfile)
        unplug()
        check_running(checks, builder, stage, folder / "volume")
    print(f"{len(checks.failed)} of the checks failed." if checks.failed else "All of it holds.")
    sys.exit(bool(checks.failed))


def _debian(base: Path, mirror: str) -> Path:
    """Make a root file system with what the base image has of what is needed here, under the same names."""
    tell(f"debootstrap {SUITE}")
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(base), mirror)
    shutil.copyfile("/etc/resolv.conf", base / "etc/resolv.conf")
    with _mounts(_system(base)):
        run("chroot", str(base), "apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
        run("chroot", str(base), "apt-get", "clean")
    for name in ("python", "python3"):
        (base / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    return base


if __name__ == "__main__":
    main()
