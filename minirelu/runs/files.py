"""Writing files so that a crash at any moment leaves the old content or the new, never half."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from minirelu.errors import UserError, one_line, shown


def sync(path: Path) -> None:
    """Hand a file, or a folder's list of names, to the disk (as ``fsync`` does)."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    fd = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write a file under; it takes the place of ``path`` when done."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes ``path`` (new, or empty so far) when done."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a crash
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        if path.is_dir():
            path.rmdir()  # only if it is empty
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(file: IO[bytes], otherwise: str) -> Iterator[None]:
    """Hold an open file for this process alone, or raise saying ``otherwise``.

    The operating system lets go of it when the process ends, however it ends.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # Windows locks bytes, and keeps readers from them: one far past the end
            file.seek(1 << 40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(otherwise) from None
    yield  # closing the file unlocks it


def remove_leftovers(folder: Path) -> None:
    """Remove what a crash left half-written under temporary names."""
    for leftover in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise a :class:`UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise UserError(f"cannot read {shown(path)}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{shown(path)} is damaged: {one_line(e)}") from None


def sha256(path: Path) -> str:
    """Digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed ``.npz`` file."""
    with replacing(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, **arrays)  # type: ignore[arg-type]  # its stubs want allow_pickle


# What zipfile, zlib and NumPy raise for damaged archives.
_DAMAGED = (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, largest: int = 1 << 30) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file without unpickling and without trusting the sizes it claims.

    Parameters
    ----------
    path : Path
    largest : int
        bytes that all arrays together may take; more is refused before memory is taken.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > largest:
                raise ValueError("it claims more data than such a file can hold")
            for member in archive.infolist():
                with archive.open(member) as f:
                    _check_header(f, member.file_size)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as e:
        raise UserError(f"cannot read {shown(path)}: {e.strerror or one_line(e)}") from None
    except _DAMAGED as e:
        raise UserError(f"{shown(path)} is damaged: {one_line(e)}") from None


def _check_header(f, size: int) -> None:
    """Raise ValueError where an ``.npy`` member claims more numbers than it has bytes."""
    version = np.lib.format.read_magic(f)
    if version != (1, 0):
        raise ValueError(f"array format {version} is not known")
    shape, _, dtype = np.lib.format.read_array_header_1_0(f)
    claimed = dtype.itemsize
    for n in shape:
        claimed *= n
    if dtype.hasobject or claimed > size:
        raise ValueError("an array claims more data than the file holds")


@contextlib.contextmanager
def explained(doing: str, left: str = "") -> Iterator[None]:
    """Turn failures of the disk into one line: what was being done, why not, what is left."""
    try:
        yield
    except OSError as e:
        full = e.errno == errno.ENOSPC
        reason = "the disk is full" if full else (e.strerror or str(e))
        where = f" ({shown(e.filename)})" if e.filename else ""
        tail = f"; {left}" if left else ""
        advice = "; free some space and try again" if full else ""
        raise UserError(f"{doing} failed: {reason}{where}{tail}{advice}") from e
