"""What a fuzz target is, how files are damaged, and what may come of reading one.

A target reads one file (or takes one value). The only outcomes allowed are a result, or a `ValueError` or `OSError`
whose message names the file or setting; within seconds, within bounded memory, and without running the canary.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

SECONDS = 20  # a case that takes longer hangs; most take milliseconds, on a machine at rest
MEMORY = 3 << 30  # bytes of address space that a case may add
CANARY = "CANARY"
DIRECTORY = None  # as content: a folder lies in the place of the file
OUT_OF_MEMORY = re.compile("allocate|out of memory", re.IGNORECASE)

NUMBERS = (0, 1, 2, 3, 13, -1, -2, 1.5, 2**31, 2**53 + 1, 2**63, 10**30, -(10**30), 1e308, float("nan"), float("inf"))
TEXTS = (
    *("", " ", "0", "-1", "a", "a.mp4", "nan", "inf", "1e999", "9" * 400, "True", "None", "null", "{}", "[]", "\x00"),
    *("../../../../../etc/passwd", "/dev/null", "/", ".", "..", "~", "a" * 300, "é", "\ufeff", "\u202e", "𝟜", "²"),
    *("a\nb", 'a"b', "a,b", ";", ";;", "0;3;7", "0;0", "7;3", "-5;2", "0;99999999999999999999", "x.csv", "x.npy"),
    *("\ud800".encode("utf-8", "surrogatepass").decode("latin1"), "%s%n", "{name}", "C:\\a\\b.mp4", "http://x/a.mp4"),
)
BYTES = (
    b"",
    b"\x00",
    b"\xff",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00" * 8,
    b"\xef\xbb\xbf",
    b"\r\n",
)
BYTES += (b"-1", b"nan", b"1e999", b"9" * 25, b'"', b",", b";", b"[" * 2000, b"\x00\x00\x00\x00\x00\x00\x00\x10", b".")

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats())
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: For the table.
        read: Reads the folder that `prepare` made (or, without a `file`, gets the value) and looks at all it found.
        structured: Contents that are nearly valid (or values).
        prepare: Writes valid files into a folder.
        file: Path in that folder of the file that is replaced; empty: the target takes a value.
        names: Pattern that the message of every error must hold, or what gives it for a value; default the name of the
            file.
    """

    name: str
    read: Callable[[Path, Any], Any]
    structured: SearchStrategy[Any]
    prepare: Callable[[Path], Any] = lambda home: None
    file: str = ""
    names: str | Callable[[Any], str] = ""


class BrokenError(AssertionError):
    """A parser did what none may do."""


class Hang(BaseException):
    """Raised by the alarm inside whatever takes too long; no parser's `except Exception` stops it."""


class Payload:
    """Unpickling it without care makes the file CANARY in the folder that it names."""

    def __init__(self, home: Path) -> None:
        self.mark = home / CANARY

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


class Prepared:
    """A target with its files on disk: `cases` to draw from, `try_case` to run one."""

    def __init__(self, target: Target, home: Path) -> None:
        self.target, self.home = target, home
        home.mkdir(parents=True, exist_ok=True)
        target.prepare(home)
        self.path = home / target.file
        self.valid = self.path.read_bytes() if target.file else b""

    @property
    def cases(self) -> SearchStrategy[Any]:
        """Nearly valid contents, damaged valid ones, and a folder in the place of the file."""
        if not self.target.file:
            return self.target.structured
        files = hostile_files(self.home)
        hostile = st.sampled_from([DIRECTORY, b"", *files, *within(self.valid, files)])
        return st.one_of(self.target.structured, mutated(self.valid), self.target.structured.flatmap(mutated), hostile)

    def try_case(self, content: Any) -> str:
        """The kind of error that came of it, or "read".

        Raises:
            BrokenError: for any other outcome.
        """
        with self._in_place(content):
            outcome = self._outcome(content)
        if (self.home / CANARY).exists():
            (self.home / CANARY).rmdir()
            raise BrokenError(f"{self.target.name} ran code from its input")
        return outcome

    def _outcome(self, content: Any) -> str:
        try:
            with limits():
                self.target.read(self.home, content)
        except (ValueError, OSError) as error:
            return self._judged(error, content)
        except Hang as hang:
            raise BrokenError(f"{self.target.name} hangs") from hang
        except Exception as error:
            raise BrokenError(f"{self.target.name}: {type(error).__name__}: {error}") from error
        return "read"

    def _judged(self, error: Exception, content: Any) -> str:
        names = self.target.names or re.escape(Path(self.target.file).name)
        wanted = names(content) if callable(names) else names
        if not re.search(wanted, str(error)):
            raise BrokenError(f"{self.target.name}: the message does not name {wanted}: {error!r}") from error
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and OUT_OF_MEMORY.search(str(cause))):
                raise BrokenError(f"{self.target.name} was stopped only by the end of memory") from error
            cause = cause.__cause__ or cause.__context__
        return type(error).__name__

    @contextmanager
    def _in_place(self, content: Any) -> Iterator[None]:
        """The file replaced by `content`, with a time of its own, so that no cache takes it for another."""
        if not self.target.file:
            yield
            return
        self.path.unlink()
        if content is DIRECTORY:
            self.path.mkdir()
        else:
            self.path.write_bytes(content)
        try:
            yield
        finally:
            if self.path.is_dir():
                self.path.rmdir()
            self.path.write_bytes(self.valid)


@contextmanager
def limits() -> Iterator[None]:
    """Raises `Hang` after SECONDS, and `MemoryError` where more than MEMORY is asked for."""

    def stop(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


# contents -----------------------------------------------------------------------------------------------------------


def mutated(valid: bytes) -> SearchStrategy[bytes]:
    """`valid` with one to six places flipped, overwritten, inserted, left out, repeated, or cut off."""
    place = st.integers(0, max(0, len(valid) - 1))
    piece = st.one_of(st.sampled_from(BYTES), st.binary(min_size=1, max_size=8))
    kinds = st.sampled_from(["flip", "overwrite", "insert", "delete", "repeat", "cut"])
    return st.lists(st.tuples(kinds, place, piece), min_size=1, max_size=6).map(lambda edits: edited(valid, edits))


def edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """The bytes after all edits."""
    for kind, place, piece in edits:
        before, after = data[:place], data[place:]
        if kind == "flip":
            data = before + bytes(byte ^ 1 << len(piece) % 8 for byte in after[:1]) + after[1:]
        elif kind == "overwrite":
            data = before + piece + after[len(piece) :]
        elif kind == "insert":
            data = before + piece + after
        elif kind == "delete":
            data = before + after[len(piece) :]
        elif kind == "repeat":
            data = before + after[: 4 * len(piece)] * 2 + after[4 * len(piece) :]
        else:
            data = before or after[:1]
    return data


def hostile_files(home: Path) -> list[bytes]:
    """Files that would run the canary, or take all memory, if they were believed."""
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(home)], object), allow_pickle=True)
    files = [objects.getvalue(), *(pickle.dumps(Payload(home), protocol) for protocol in (0, 2, 4))]
    files += [npy_header(shape) for shape in ("(1000000000,)", "(1000000000, 4)", "(4611686018427387904, 4)", "(-1,)")]
    files += [npy_header("(9223372036854775808,)"), npy_header("(True,)"), npy_header("(2,)", "-" * 3000 + "1")]
    return [*files, (1 << 60).to_bytes(8, "little") * 3, b"[" * 100_000, b"{" * 5000 + b"}" * 5000]


def within(valid: bytes, files: list[bytes]) -> list[bytes]:
    """Of a zip archive: the same with its largest member replaced by each of the files; of arrays, one that unfolds."""
    if not zipfile.is_zipfile(io.BytesIO(valid)):
        return []
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = [name for name in members if name.endswith("data.pkl")]
    place = (pickled or sorted(members, key=lambda name: len(members[name])))[-1]
    bombs = [unfolding(place)] if place.endswith(".npy") else []
    return [*(zipped(members | {place: data}) for data in files), *bombs]


def zipped(members: dict[str, bytes]) -> bytes:
    """An archive, not compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def unfolding(name: str, size: int = (1 << 32) - (1 << 24)) -> bytes:
    """An archive of a thousandth of `size`; its member is a .npy of so many bytes of zeros, 2^24 at least."""
    header, block = npy_header(f"({size // 8},)")[:-16], 1 << 24
    deflate = zlib.compressobj(wbits=-15)
    head = deflate.compress(header) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(block)) + deflate.flush(zlib.Z_FULL_FLUSH)  # after a full flush, as good as first
    data = bytearray(zipped({name: head + zeros * (size // block) + deflate.flush()}))
    for place in (8, data.rindex(b"PK\x01\x02") + 10):  # the method: zipfile packs no stream that is packed already
        struct.pack_into("<H", data, place, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, place + 14, len(header) + size)
    return bytes(data)


def npy_header(shape: str, kind: str = "'<f8'") -> bytes:
    """A .npy that promises `shape` and holds two numbers."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


def tables(columns: tuple[str, ...], cells: SearchStrategy[str] = texts) -> SearchStrategy[bytes]:
    """CSV files: wrong or doubled columns, odd cells, both line ends, a BOM, other encodings."""
    header = st.one_of(st.just(list(columns)), st.lists(st.one_of(st.sampled_from(columns), texts), max_size=8))
    rows = st.lists(st.lists(cells, min_size=1, max_size=len(columns) + 1), max_size=5)
    ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
    codes = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin1"])
    return st.tuples(header, rows, ends, codes).map(
        lambda t: t[2].join(",".join(row) for row in (t[0], *t[1])).encode(t[3], "replace")
    )


def json_files(values: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    """Values as JSON, NaN and unpaired surrogates included."""
    return st.tuples(values, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])).map(
        lambda pair: json.dumps(pair[0], default=str).encode(pair[1], "surrogatepass")
    )


def changed(valid: dict, values: SearchStrategy[Any] = plain) -> SearchStrategy[dict]:
    """`valid` with one to three of its entries, at any depth, replaced or left out."""
    paths = list(_paths(valid))
    edits = st.lists(st.tuples(st.sampled_from(paths), st.one_of(values, st.just(KeyError))), min_size=1, max_size=3)
    return edits.map(lambda chosen: _edited(valid, chosen))


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _edited(valid: Any, edits: list[tuple[tuple, Any]]) -> Any:
    result = _copied(valid)
    for path, new in edits:
        holder = result
        for key in path[:-1]:
            holder = holder[key] if isinstance(holder, dict | list) and _has(holder, key) else None
        if not isinstance(holder, dict | list) or not _has(holder, path[-1]):
            continue
        if new is KeyError:
            del holder[path[-1]]
        else:
            holder[path[-1]] = new
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _has(holder: dict | list, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(key, int) and key < len(holder)
