"""The machine: QEMU without any device but serial lines, a kernel, and an archive as its root.

A program in it finds what it finds here, as far as it was taken along: the project, its Python, a few commands.
"""

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster.terminal import Foreseen
from tests.cni.build import plugin
from tests.vm.archive import Archive

ROOT = Path(__file__).parents[2]
FETCH = "tests/vm/fetch"
QEMU = "qemu-system-x86_64"
COMMANDS = ("busybox", "env", "ip", "nft", "nsenter", "sh", "timeout", "true", "unshare")
# What the project's own dependencies leave out.
_DISTRIBUTIONS = ("tortie", "pytest", "pytest-asyncio", "cryptography")
_MODULES = ("net", "lib", "crypto", "arch", "drivers/net")  # of the kernel
# Large, and never imported.
_UNUSED = re.compile(
    r"/(idlelib|lib2to3|tkinter|_tkinter[^/]*|ensurepip|turtledemo|config-3[^/]*|tests?|pydoc_data"
    r"|kubernetes/(aio/)?client/(models|api)/(?!__init__)[^/]+|[^/]*\.opt-[12]\.pyc)$"
)
_MEMORY = 1536  # MB; the archive is in it twice for a moment
_INIT = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox ip link set lo up
busybox stty -F /dev/ttyS1 raw
{{
    cd {folder}
    {environment} timeout {seconds} {command}
    echo "{end}$?"
}} </dev/null >/dev/ttyS1 2>&1
busybox poweroff -f
"""
_END = "ended with "


class Ended(NamedTuple):
    """What a program in the machine printed, and its status: 0 where all went well."""

    status: int
    output: str


def why_not() -> str:
    """Return why there can't be such a machine here, "" where there can."""
    if platform.machine() != "x86_64":
        return f"the virtual machine is for x86_64, and this is {platform.machine()}"
    if shutil.which(QEMU) is None:
        return f"there is no {QEMU}: apt-get install qemu-system-x86"
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        return f"the virtual machine needs {', '.join(missing)}"
    if kernel() is None:
        return f"there is no kernel for the virtual machine: {FETCH} fetches Debian's"
    return ""


@functools.cache
def kernel() -> Path | None:
    """Return the folder in which the kernel was unpacked."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = Path(home) / "tortie" / "linux"
    return found if found.exists() else None


def run(command: Sequence[str], *, seconds: float) -> Ended:
    """Start a machine, run a command in it from the project's folder, and return how it ended. Raises Foreseen."""
    unpacked = kernel()
    assert unpacked, why_not()
    (image,) = unpacked.glob("boot/vmlinuz-*")
    with tempfile.TemporaryDirectory(prefix="tortie-vm-") as made:
        folder = Path(made)
        with (folder / "initramfs").open("wb") as file:
            _root(unpacked, command, seconds).pack(file)
        started = [
            QEMU, "-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(_MEMORY),
            "-kernel", str(image), "-initrd", str(folder / "initramfs"),
            "-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on",
            "-serial", f"file:{folder / 'console'}", "-serial", f"file:{folder / 'output'}",
        ]  # fmt: skip
        try:
            # What the program doesn't end in time is ended by the machine's own clock; this is for a kernel that hangs.
            done = subprocess.run(started, capture_output=True, text=True, check=False, timeout=seconds + 60)
        except subprocess.TimeoutExpired as error:
            raise Foreseen(f"the virtual machine doesn't end:\n{_said(folder)}") from error
        said, _, status = (folder / "output").read_text(errors="replace").rpartition(_END)
        if done.returncode or not status.strip().isdecimal():
            raise Foreseen(f"the virtual machine failed:\n{done.stderr}{_said(folder)}")
        return Ended(int(status), said)


def _said(folder: Path) -> str:
    return "\n".join((folder / name).read_text(errors="replace") for name in ("console", "output") if (folder / name).exists())


def _root(unpacked: Path, command: Sequence[str], seconds: float) -> Archive:
    """Return all files of the machine."""
    made = Archive()
    for place in ("/proc", "/sys", "/dev", "/run", "/var/run", "/tmp", "/sbin"):
        made.folder(place)
    made.execute(*(Path(str(shutil.which(name))) for name in COMMANDS))
    made.link("/sbin/modprobe", str(shutil.which("busybox")))  # the kernel calls it
    (modules,) = unpacked.glob("lib/modules/*")
    of_kernel = Path("/lib/modules") / modules.name
    for one in (*modules.glob("modules.*"), *(modules / "kernel" / name for name in _MODULES)):
        made.copy(one, of_kernel / one.relative_to(modules))
    _python(made)
    for name in ("operator", "tests", "cni", "pyproject.toml"):
        made.copy(ROOT / name, wanted=lambda path: path.name not in (".git", "bin", "binaries"))
    made.copy(plugin())
    made.execute_libraries()
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    kept |= {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    made.write("/init", _INIT.format(
        folder=ROOT, environment=shlex.join(f"{name}={value}" for name, value in kept.items()), command=shlex.join(command),
        seconds=int(seconds), end=_END,
    ))  # fmt: skip
    return made


def _python(made: Archive) -> None:
    """Take the Python that runs this, and of its packages what the project needs."""

    def wanted(path: Path) -> bool:
        return path.name != "site-packages" and not _UNUSED.search(str(path))

    made.execute(Path(sys.executable), Path(sys.executable).resolve())
    made.copy(Path(sys.prefix) / "pyvenv.cfg")
    made.copy(Path(sys.executable).parent / "tortie")
    made.copy(Path(os.__file__).parent, wanted=wanted)
    packages = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    made.copy(packages / "_tortie.pth")
    for name in _closure(_DISTRIBUTIONS):
        for top in {
            file.parts[0] for file in importlib.metadata.files(name) or () if file.parts[0] not in ("..", "__pycache__")
        }:
            made.copy(packages / top, wanted=lambda path: not _UNUSED.search(str(path)))


def _closure(names: Iterable[str]) -> set[str]:
    """Return distributions with all that they require, as far as it is installed."""
    found, left = set[str](), [*names]
    while left:
        name = left.pop()
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        found.add(name)
        left += [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in required if "extra ==" not in one]
    return found
