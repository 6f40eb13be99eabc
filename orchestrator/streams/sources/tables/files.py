"""Finds the files of a user's own table (one, a list, a pattern, a folder, a URI) and whether memory holds them."""

from __future__ import annotations

import glob
import gzip
import os
import re
import sys
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import pyarrow.parquet as pq

from orchestrator.core.errors import DataError, StorageError
from orchestrator.storage.remote import RemoteFile, find_remote, read_remote
from orchestrator.storage.uris import Uri, is_uri, local_path, path_of
from orchestrator.streams.settings import TABLE_SUFFIXES, as_paths

_PARQUET = (".parquet", ".pq")
_BYTES_A_BYTE = {"parquet": 15.0, "csv": 4.5, "gzip": 20.0}
"""Memory for a byte of a file: its content, the table and the features. Measured on 2,000,000 rows of 30 numbers."""

_BYTES_A_VALUE = 26
"""The same for a value of a Parquet file, whose numbers of rows and columns are known."""

_NO_FILE = "check the path, which is relative to the working directory"


@dataclass(frozen=True)
class TableFile:
    """A file of a table.

    Args:
        place: the file.
        name: how messages name it.
        partitions: column -> value, of the folders COLUMN=VALUE that it is in.
    """

    place: Path | RemoteFile
    name: str
    partitions: tuple[tuple[str, str], ...] = ()

    @property
    def suffix(self) -> str:
        """Return the end of its name, in small letters."""
        name = self.place.name if isinstance(self.place, Path) else unquote(Uri.parse(self.place.uri).path)
        return next((suffix for suffix in TABLE_SUFFIXES if name.lower().endswith(suffix)), "")

    @property
    def is_parquet(self) -> bool:
        return self.suffix in _PARQUET

    @property
    def size_bytes(self) -> int:
        return self.place.stat().st_size if isinstance(self.place, Path) else self.place.size_bytes

    @property
    def state(self) -> tuple[str, int | str, int]:
        """Return what differs once the file has changed."""
        if isinstance(self.place, Path):
            return str(self.place.absolute()), self.place.stat().st_mtime_ns, self.size_bytes
        return self.place.uri, self.place.version, self.size_bytes

    def content(self, most_bytes: int | None = None) -> bytes:
        """Return the bytes of the file, unpacked; more than `most_bytes` of them at most by one."""
        packed = self.place.read_bytes() if isinstance(self.place, Path) else read_remote(self.place)
        if not self.suffix.endswith(".gz"):
            return packed
        with gzip.open(BytesIO(packed)) as file:
            return file.read(-1 if most_bytes is None else most_bytes + 1)

    def needed_bytes(self) -> float:
        """Return about how much memory it takes to read the file."""
        if not self.is_parquet:
            return self.size_bytes * _BYTES_A_BYTE["gzip" if self.suffix.endswith(".gz") else "csv"]
        if isinstance(self.place, Path):
            facts = pq.read_metadata(self.place)
            groups = (facts.row_group(index) for index in range(facts.num_row_groups))
            values = _BYTES_A_VALUE * facts.num_rows * facts.num_columns
            return float(max(values, 2 * sum(group.total_byte_size for group in groups)))
        return self.size_bytes * _BYTES_A_BYTE["parquet"]


def find_files(where: str, places: str | tuple[str, ...]) -> tuple[list[TableFile], list[str]]:
    """Return the files that a setting names, in its order, those of a folder or pattern sorted; and what was skipped.

    Skipped are hidden files, those whose name begins with _, and those that are no tables.

    Raises:
        DataError: if there are none, naming each place.
    """
    found: list[TableFile] = []
    faults: list[str] = []
    skipped: list[str] = []
    for place in as_paths(places):
        try:
            own, others = _remote(place) if is_uri(place) and Uri.parse(place).scheme != "file" else _local(place)
        except (StorageError, OSError) as error:
            faults.append(f"{where}: {str(error).removeprefix('storage: ').rstrip('.')}; correct the path")
            continue
        if others:
            n_files = "1 file" if len(others) == 1 else f"{len(others)} files"
            skipped.append(f"{n_files} of '{place}' left out, such as '{others[0]}': hidden, or not named as a table")
        if not own:
            what = "nothing that matches" if "*" in place else "no file"
            inside = " that ends in " + ", ".join(TABLE_SUFFIXES) if Path(place).is_dir() else ""
            faults.append(f"{where}: there is {what} '{place}'{inside}; {_NO_FILE}")
        found += own
    if faults:
        raise DataError(*faults)
    if len(found) == 1 and as_paths(places) == (found[0].name,) and not found[0].is_parquet:
        found = [replace(found[0], partitions=())]  # a CSV file of its own has the columns of its header
    return found, skipped


Found = tuple[list[TableFile], list[str]]


def _local(place: str) -> Found:
    path = path_of(Uri.parse(place)) if is_uri(place) else local_path(place)
    if path.is_file():
        return [TableFile(path, place, _partitions(path.parts[:-1]))], []
    if path.is_dir():
        found, root = [Path(folder) / n for folder, _, names in os.walk(path, followlinks=True) for n in names], path
    else:
        found, root = [Path(match) for match in glob.glob(str(path), recursive=True)], _above(path)
    inside = [file for file in sorted(found) if file.is_file()]
    kept, skipped = _split(inside, [file.relative_to(root).parts for file in inside])
    return [TableFile(file, str(file), _partitions(file.relative_to(root).parts[:-1])) for file in kept], skipped


def _above(pattern: Path) -> Path:
    """Return the folder that holds all that a pattern can match."""
    return next(folder for folder in pattern.parents if not re.search(r"[*?[]", str(folder)))


def _remote(place: str) -> Found:
    files, root = find_remote(place), unquote(Uri.parse(place).path).strip("/")
    paths = [tuple(unquote(Uri.parse(file.uri).path).strip("/").split("/")) for file in files]
    if [root.split("/")] == [list(path) for path in paths]:
        return [TableFile(files[0], files[0].uri, _partitions(paths[0][:-1]))], []
    fixed = root.partition("*")[0].rpartition("/")[0] if "*" in root else root
    n_above = len(fixed.split("/")) if fixed else 0
    kept, skipped = _split(files, [path[n_above:] for path in paths])
    folders = [path[n_above:-1] for file, path in zip(files, paths, strict=True) if file in kept]
    return [TableFile(f, f.uri, _partitions(p)) for f, p in zip(kept, folders, strict=True)], skipped


F = TypeVar("F", Path, RemoteFile)


def _split(files: list[F], parts: list[tuple[str, ...]]) -> tuple[list[F], list[str]]:
    """Return the files that are tables, and the names of the others."""
    is_table = [_is_table(path) for path in parts]
    others = ["/".join(path) for path, fits in zip(parts, is_table, strict=True) if not fits]
    return [file for file, fits in zip(files, is_table, strict=True) if fits], others


def _is_table(parts: tuple[str, ...]) -> bool:
    return not any(part.startswith((".", "_")) for part in parts) and parts[-1].lower().endswith(TABLE_SUFFIXES)


def _partitions(folders: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [folder.partition("=") for folder in folders if re.fullmatch(r"[^=]+=.*", folder)]
    return tuple((unquote(name), unquote(value)) for name, _, value in pairs)


def check_memory(where: str, files: list[TableFile]) -> int:
    """Return the available memory in bytes.

    Raises:
        DataError: if the files need more than that.
    """
    available = available_bytes()
    try:
        needed = sum(file.needed_bytes() for file in files)
    except Exception:  # a damaged file, which the reader reports
        return available
    if needed > available:
        size = sum(file.size_bytes for file in files)
        raise DataError(
            f"{where}: reading '{files[0].name}'{f' and {len(files) - 1} more' if files[1:] else ''} needs about "
            f"{needed / 2**30:.3g} GiB of memory ({size / 2**30:.3g} GiB of files), and {available / 2**30:.3g} GiB "
            "are available; take fewer rows or columns, or a larger machine"
        )
    return available


def available_bytes() -> int:
    """Return how much memory this process may still take: of the machine, and of its control group if that is less."""
    available = sys.maxsize
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        available = int(found[1]) * 1024 if found else available
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        available = min(available, int(most) - int(used))
    except (OSError, ValueError):  # another system, or no limit
        pass
    return available
