"""Digests of source code, for the record and for what is remembered of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent


def digest_of(files: Iterable[Path]) -> str:
    """Twelve hexadecimal digits that change with any line of these files.

    The same on all systems: line endings do not count.
    """
    digest = hashlib.sha256()
    for file in files:
        text = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.parent.name}/{file.name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


@functools.cache
def source_digest() -> str:
    """Digest of what decides a training's numbers: ``model``, ``kernels``, ``training``, compute.

    >>> len(source_digest())
    12
    """
    rooms = (ROOT / name for name in ("model", "kernels", "training"))
    return digest_of([*(file for room in rooms for file in sorted(room.glob("*.py"))),
                      ROOT / "compute.py"])  # fmt: skip
