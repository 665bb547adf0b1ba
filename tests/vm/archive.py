"""Files of this machine, in an archive that a kernel unpacks into memory as its root.

Each has the place that it has here, and links on the way to it are as they are here.
"""

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

# The format "newc" of cpio (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
_MAGIC, _END = "070701", "TRAILER!!!"
_LIBRARY = re.compile(r"(?:=> |^\s+)(/\S+) \(0x", re.MULTILINE)  # a line of ldd


class Archive:
    """What is taken, by its place; links and folders that lead there come by themselves."""

    def __init__(self) -> None:
        self._taken: dict[Path, Path | str | bytes | None] = {}  # a file of this machine; a link; a content; a folder

    def write(self, place: str, content: str) -> None:
        """Take a file that isn't here, for all to execute."""
        self._taken[self._way(Path(place))] = content.encode()

    def folder(self, place: str) -> None:
        """Take a folder without what is in it."""
        self._taken.setdefault(self._way(Path(place)), None)

    def link(self, place: str, target: str) -> None:
        """Take a link that isn't here."""
        self._taken[self._way(Path(place))] = target

    def copy(self, path: Path, place: Path | None = None, *, wanted: Callable[[Path], bool] = lambda _: True) -> None:
        """Take a file, or a folder with what in it is wanted; as if it were at another place."""
        real = self._way(place or path)
        if path.is_dir():
            self.folder(str(real))
            for one in filter(wanted, path.iterdir()):
                self.copy(one, real / one.name, wanted=wanted)
        elif path.exists():  # no link to nowhere
            self._taken[real] = path

    def execute(self, *paths: Path) -> None:
        """Take commands, or libraries, with the libraries that they need."""
        for path in paths:
            self.copy(path)
        done = subprocess.run(["ldd", *map(str, paths)], capture_output=True, text=True, check=False)  # 1: one needs none
        for library in set(_LIBRARY.findall(done.stdout)):
            self.copy(Path(library))

    def execute_libraries(self) -> None:
        """Take what the libraries need that were taken until now."""
        self.execute(*(one for one in self._taken.values() if isinstance(one, Path) and ".so" in one.suffixes))

    def pack(self, file: IO[bytes]) -> None:
        """Write it; a folder is before what is in it."""
        for number, (place, what) in enumerate(sorted(self._taken.items()), 1):
            match what:
                case None:
                    _entry(file, number, place, stat.S_IFDIR | 0o755, b"")
                case str():
                    _entry(file, number, place, stat.S_IFLNK | 0o777, what.encode())
                case bytes():
                    _entry(file, number, place, stat.S_IFREG | 0o755, what)
                case Path():
                    found = what.stat()
                    _entry(file, number, place, found.st_mode, what.read_bytes(), changed=int(found.st_mtime))
        _entry(file, 0, Path("/", _END), 0, b"")

    def _way(self, path: Path) -> Path:
        """Take the links and folders that lead to a path; return where it is behind the links."""
        real = Path("/")
        for part in path.parts[1:]:
            if real != Path("/"):
                self._taken.setdefault(real, None)
            real /= part
            if real.is_symlink():
                target = real.readlink()
                self._taken[real] = str(target)
                real = self._way(Path(os.path.normpath(real.parent / target)))
        return real


def _entry(file: IO[bytes], number: int, place: Path, mode: int, content: bytes, *, changed: int = 0) -> None:
    """Write one; by `changed` (seconds) Python knows whether what it compiled is of this source."""
    name = str(place)[1:]
    # Inode, mode, owner, group, links, time, size, its device and what device it is (two each), name's length, checksum.
    fields = (number, mode, 0, 0, 1, changed, len(content), 0, 0, 0, 0, len(name.encode()) + 1, 0)
    head = (_MAGIC + "".join(f"{one:08x}" for one in fields) + name + "\0").encode()
    for part in (head, content):
        file.write(part + bytes(-len(part) % 4))
