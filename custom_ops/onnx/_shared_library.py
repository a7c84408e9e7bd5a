"""What the file of a shared library says of itself: its machine, what it needs, what it exports.

Reads ELF by the gABI (https://gabi.xinuos.com), and of PE and Mach-O the kind alone. Nothing is
loaded and no code of the file runs.
"""

import functools
import mmap
import os
import platform
import re
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64", 243: "riscv"}
_OURS = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64"}
_MACH_O = {
    bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe")
}
_ELF = "an ELF file"
_SHARED = 3  # ET_DYN
_LOAD, _DYNAMIC = 1, 2  # types of program headers
_END, _NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _RPATH, _RUNPATH = 0, 1, 4, 5, 6, 10, 15, 29
_GNU_HASH = 0x6FFFFEF5
_VERDEF, _VERNEED = 0x6FFFFFFC, 0x6FFFFFFE
_WEAK = 2  # a version that may be missing
_DEFAULT_FOLDERS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


class NoLibrary(Exception):
    """Why a file is no shared library of this machine: what must be, and what is."""


@dataclass(frozen=True)
class SharedLibrary:
    """What is known of a shared library.

    Attributes:
        path: The file.
        machine: For example "x86-64".
        needed: Names of the libraries that it needs.
        rpath: Folders to look for them in before, and `runpath` after LD_LIBRARY_PATH.
        runpath: See there.
        exported: Names of the symbols that it defines.
        versions: By library that it needs, the versions of symbols that must be there.
        defined: The versions of symbols that it has.
    """

    path: Path
    machine: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    exported: frozenset[str]
    versions: Mapping[str, Sequence[str]]
    defined: Sequence[str]

    def missing(self) -> list[str]:
        """Returns which libraries that it needs are found nowhere, those of its needs included."""
        lost: list[str] = []
        seen: set[str] = set()
        waiting = [(self, self.rpath)]
        while waiting:
            library, inherited = waiting.pop()
            for name in library.needed:
                if name in seen:
                    continue
                seen.add(name)
                found = library.find(name, inherited)
                if found is None:
                    lost.append(name)
                elif found.is_absolute() and not str(found).startswith(_DEFAULT_FOLDERS):
                    try:
                        below = read(found)
                    except NoLibrary:
                        lost.append(name)
                    else:
                        waiting.append((below, () if below.runpath else inherited + below.rpath))
        return lost

    def lacking(self) -> dict[str, tuple[list[str], str]]:
        """Returns by library the versions that it lacks, as GLIBC_2.38, and the newest it has."""
        found: dict[str, tuple[list[str], str]] = {}
        for name, wanted in self.versions.items():
            place = self.find(name, self.rpath)
            try:
                defined = read(place).defined if place is not None else ()
            except NoLibrary:
                continue
            lost = [version for version in wanted if version not in defined]
            if lost and defined:  # the loader takes a library that has no versions at all
                kind = lost[0].partition("_")[0]
                alike = [version for version in defined if version.partition("_")[0] == kind]
                found[name] = lost, max(alike or defined, key=_numbers)
        return found

    def find(self, name: str, rpath: tuple[str, ...]) -> Path | None:
        """Returns where the loader finds a library, in the order in which it looks."""
        if "/" in name:
            return Path(name) if Path(name).is_file() else None
        folders = [] if self.runpath else list(rpath)
        folders += os.environ.get("LD_LIBRARY_PATH", "").split(":")
        folders += self.runpath
        for folder in filter(None, folders):
            place = Path(folder) / name
            if place.is_file():
                return place.resolve()
        if name in _cached():
            return Path(_cached()[name])
        places = (Path(folder) / name for folder in _DEFAULT_FOLDERS)
        return next((place for place in places if place.is_file()), None)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)]


@functools.cache
def _cached() -> dict[str, str]:
    """Returns the libraries in the cache of the loader, by name."""
    try:
        done = subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = (line.partition(" => ") for line in done.stdout.splitlines() if " => " in line)
    return {name.split()[0]: place for name, _, place in reversed(list(lines))}


def read(path: Path) -> SharedLibrary:
    """Reads a library.

    Raises:
        NoLibrary: It is none, or none of this machine.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise NoLibrary("a shared library, got an empty file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(path, data)
    except OSError as error:
        raise NoLibrary(f"a file that can be read, got: {error.strerror}") from error


def _read(path: Path, data: mmap.mmap) -> SharedLibrary:
    kind = _kind(data)
    if kind != _ELF:
        raise NoLibrary(f"a shared library (ELF), got {kind}")
    try:
        return _elf(path, data)
    except (struct.error, IndexError, ValueError) as error:
        raise NoLibrary("a whole shared library, got one that is cut off or broken") from error


def _kind(data: mmap.mmap) -> str:
    if data[:4] == b"\x7fELF":
        return _ELF
    if data[:2] == b"MZ":
        return "one of Windows (PE)"
    if data[:4] in _MACH_O:
        return "one of macOS (Mach-O)"
    return f"{len(data)} bytes of something else"


def _elf(path: Path, data: mmap.mmap) -> SharedLibrary:
    if data[4] not in (1, 2) or data[5] not in (1, 2):
        raise ValueError
    order, wide = "<" if data[5] == 1 else ">", data[4] == 2
    kind, number = struct.unpack_from(f"{order}HH", data, 16)
    machine = _MACHINES.get(number, f"machine {number}")
    ours = _OURS.get(platform.machine(), platform.machine())
    if machine != ours:
        raise NoLibrary(f"built for this machine, {ours}, got one for {machine}")
    if kind != _SHARED:
        raise NoLibrary(f"a shared library, got another kind of ELF file ({kind})")
    if not wide:
        raise ValueError
    start = struct.unpack_from(f"{order}Q", data, 32)[0]
    size, count = struct.unpack_from(f"{order}HH", data, 54)
    segments, dynamic = [], None
    for index in range(count):
        what, _, offset, address, _, length, *_ = struct.unpack_from(
            f"{order}IIQQQQQQ", data, start + index * size
        )
        if what == _LOAD:
            segments.append((address, offset, length))
        elif what == _DYNAMIC:
            dynamic = (offset, length)
    if dynamic is None:
        raise NoLibrary("a shared library, got an ELF file without a dynamic section")

    def at(address: int) -> int:
        for begin, offset, length in segments:
            if begin <= address < begin + length:
                return int(address - begin + offset)
        raise ValueError

    entries: dict[int, list[int]] = {}
    for place in range(dynamic[0], dynamic[0] + dynamic[1] - 15, 16):
        tag, value = struct.unpack_from(f"{order}qQ", data, place)
        if tag == _END:
            break
        entries.setdefault(tag, []).append(value)
    begin = at(entries[_STRTAB][0]) if _STRTAB in entries else 0
    strings = data[begin : begin + entries.get(_STRSZ, [0])[0]]

    def text(offset: int) -> str:
        return strings[offset : strings.index(b"\0", offset)].decode()

    def folders(tag: int) -> tuple[str, ...]:
        joined = ":".join(text(offset) for offset in entries.get(tag, ()))
        origin = str(path.resolve().parent)
        paths = joined.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
        return tuple(filter(None, paths.split(":")))

    names = set()
    if _SYMTAB in entries:
        table = at(entries[_SYMTAB][0])
        for index in range(_symbols(data, order, entries, at)):
            name, _, _, section = struct.unpack_from(f"{order}IBBH", data, table + index * 24)
            if section:  # 0 is what others define
                names.add(text(name))
    return SharedLibrary(
        path,
        machine,
        tuple(text(offset) for offset in entries.get(_NEEDED, ())),
        folders(_RPATH),
        folders(_RUNPATH),
        frozenset(names),
        {text(file): wanted for file, wanted in _needs(data, order, entries, at, text)},
        [text(each) for each in _defines(data, order, entries, at)],
    )


def _needs(
    data: mmap.mmap,
    order: str,
    entries: Mapping[int, Sequence[int]],
    at: Callable[[int], int],
    text: Callable[[int], str],
) -> Iterator[tuple[int, list[str]]]:
    """Yields of each library that is needed its name's offset, and the versions."""
    place = at(entries[_VERNEED][0]) if _VERNEED in entries else 0
    while place:
        _, count, file, first, step = struct.unpack_from(f"{order}HHIII", data, place)
        wanted, inner = [], place + first
        for _ in range(count):
            _, flags, _, name, further = struct.unpack_from(f"{order}IHHII", data, inner)
            if not flags & _WEAK:
                wanted.append(text(name))
            inner += further
        yield file, wanted
        place = place + step if step else 0


def _defines(
    data: mmap.mmap, order: str, entries: Mapping[int, Sequence[int]], at: Callable[[int], int]
) -> Iterator[int]:
    """Yields the offsets of the names of the versions that are defined."""
    place = at(entries[_VERDEF][0]) if _VERDEF in entries else 0
    while place:
        first, step = struct.unpack_from(f"{order}II", data, place + 12)
        yield int(struct.unpack_from(f"{order}I", data, place + first)[0])
        place = place + step if step else 0


def _symbols(
    data: mmap.mmap, order: str, entries: Mapping[int, Sequence[int]], at: Callable[[int], int]
) -> int:
    """Returns how many symbols there are, which only the hash tables tell."""
    if _HASH in entries:
        return int(struct.unpack_from(f"{order}I", data, at(entries[_HASH][0]) + 4)[0])
    if _GNU_HASH not in entries:
        return 0
    table = at(entries[_GNU_HASH][0])
    buckets, first, words = struct.unpack_from(f"{order}III", data, table)
    start = table + 16 + 8 * words
    last = max(struct.unpack_from(f"{order}{buckets}I", data, start), default=0)
    if last < first:
        return int(first)
    chains = start + 4 * buckets
    while not struct.unpack_from(f"{order}I", data, chains + 4 * (last - first))[0] & 1:
        last += 1
    return int(last) + 1
