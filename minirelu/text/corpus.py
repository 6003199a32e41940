"""Where text comes from: Python's standard library, a file, or a folder; split by document."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import os
import sysconfig
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from minirelu.config import TextConfig
from minirelu.errors import UserError, shown

OnRead = Callable[[int], None]
CHUNK = 1 << 20  # bytes read at a time: memory stays small however large the corpus
_STDLIB_LEAVE_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"}


@dataclass(frozen=True)
class Document:
    """Bytes ``start`` to ``stop`` of a file; ``name`` is its path inside the corpus."""

    name: str
    path: Path
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start

    def raw_chunks(self) -> Iterator[bytes]:
        """Read the bytes, piece by piece."""
        try:
            with open(self.path, "rb") as f:
                f.seek(self.start)
                left = self.size
                while left > 0 and (raw := f.read(min(CHUNK, left))):
                    left -= len(raw)
                    yield raw
        except OSError as e:
            raise UserError(f"cannot read {shown(self.path)}: {e.strerror}") from None

    def chunks(self) -> Iterator[str]:
        """Read the text in pieces of about 1 MB, cut after a line end where there is one."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        held, done = "", self.start
        for raw in itertools.chain(self.raw_chunks(), [b""]):  # the empty piece ends the text
            try:
                held += decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as e:
                # the decoder's own object begins with bytes held back from the piece before
                where = done - (len(e.object) - len(raw)) + e.start
                raise UserError(
                    f"{shown(self.path)} is not UTF-8 text (byte {where}); convert it first"
                ) from None
            if done == 0:
                held = held.removeprefix("\ufeff")  # a byte order mark is not text
            done += len(raw)
            cut = held.rfind("\n") + 1 if raw else 0
            cut = cut or len(held)
            if cut:
                yield held[:cut]
            held = held[cut:]


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents to validate on.

    Attributes
    ----------
    name : str
        as given: ``stdlib`` or a path.
    train, val : tuple of Document
    found_bytes : int
        of all documents; ``limit_mb`` takes a part of them.
    skipped : int
        files of a folder that are not text (they hold a zero byte) or empty.
    """

    name: str
    train: tuple[Document, ...]
    val: tuple[Document, ...]
    found_bytes: int
    skipped: int = 0

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return sum(d.size for d in (*self.train, *self.val))

    @property
    def kept_whole(self) -> bool:
        """Whether documents are whole; a single one is cut, and its last part held out."""
        return {d.path for d in self.train}.isdisjoint(d.path for d in self.val)

    def describe(self, on_read: OnRead = lambda n: None) -> dict[str, object]:
        """Read everything once: check that it is UTF-8, count it, and take its digest.

        Parameters
        ----------
        on_read : callable
            called with the number of bytes, piece by piece: for a progress bar.

        Returns
        -------
        dict
            counts of documents and bytes, and a SHA-256 over names, sizes and contents.

        Raises
        ------
        UserError
            naming the file that cannot be read or is not UTF-8, and the byte.
        """
        digest = hashlib.sha256()
        for document in (*self.train, *self.val):
            digest.update(f"{document.name}\0{document.size}\0".encode("utf-8", "surrogateescape"))
            for text in document.chunks():
                raw = text.encode("utf-8")
                digest.update(raw)
                on_read(len(raw))
        return {
            "corpus": self.name,
            "sha256": digest.hexdigest(),
            "train_documents": len(self.train),
            "val_documents": len(self.val),
            "train_bytes": sum(d.size for d in self.train),
            "val_bytes": sum(d.size for d in self.val),
            "found_bytes": self.found_bytes,
            "kept_whole": self.kept_whole,
            "skipped_files": self.skipped,
        }


def open_corpus(config: TextConfig) -> Corpus:
    """Find the documents of ``config.corpus`` and split them, without reading them yet.

    A folder (and the standard library) is split by document: documents come in an order that
    depends on their names alone, and small ones go to validation as long as they fit in
    ``config.val_fraction`` of all bytes. A single file is split into two contiguous parts, the
    last one for validation.

    Parameters
    ----------
    config : TextConfig

    Returns
    -------
    Corpus

    Raises
    ------
    UserError
        where there is no such file or folder, or no text in it.

    Examples
    --------
    >>> corpus = open_corpus(TextConfig(limit_mb=0.5))
    >>> bool(corpus.train and corpus.val)
    True
    """
    if config.corpus == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        documents, _ = _documents(root, only=".py", leave_out=_STDLIB_LEAVE_OUT)
        skipped = 0  # what is left out is left out by rule
    else:
        root = Path(os.path.expanduser(config.corpus))
        if root.is_file():
            return _single_file(root, config)
        if not root.exists():
            raise UserError(
                f"no such corpus: {shown(root)}; give a UTF-8 file, a folder of them, or 'stdlib'"
            )
        documents, skipped = _documents(root)
    if not documents:
        raise UserError(f"no text in the folder {shown(root)} ({skipped} other files)")
    if len(documents) == 1:
        return _single_file(documents[0].path, config, skipped=skipped)
    return _split(documents, config, skipped)


def _documents(
    root: Path, only: str = "", leave_out: Set[str] = frozenset()
) -> tuple[list[Document], int]:
    """List the text files below a folder, and count the others.

    Hidden files are left out, and so are folders of runs and sweeps: their files are not text
    to learn from.
    """

    def refuse(e: OSError) -> None:
        raise UserError(f"cannot read {shown(e.filename)}: {e.strerror}")

    documents, skipped = [], 0
    for folder, subfolders, files in os.walk(root, onerror=refuse):
        if {"config.toml", "metrics.jsonl"} <= set(files) or "sweep.toml" in files:
            subfolders.clear()
            skipped += len(files)
            continue
        subfolders[:] = sorted(
            d for d in subfolders if not d.startswith((".", "__pycache__")) and d not in leave_out
        )
        for file in sorted(files):
            path = Path(folder, file)
            if file.startswith(".") or not file.endswith(only) or not path.is_file():
                continue
            try:
                size = path.stat().st_size
                with open(path, "rb") as f:
                    is_text = b"\0" not in f.read(8192)
            except OSError as e:
                raise UserError(f"cannot read {shown(path)}: {e.strerror}") from None
            if size and is_text:
                documents.append(Document(path.relative_to(root).as_posix(), path, 0, size))
            else:
                skipped += 1
    return documents, skipped


def _split(documents: list[Document], config: TextConfig, skipped: int) -> Corpus:
    """Split by document, in the order of a digest of their names."""
    found_bytes = sum(d.size for d in documents)
    within = sorted(
        documents, key=lambda d: hashlib.sha256(d.name.encode("utf-8", "surrogateescape")).digest()
    )
    if config.limit_mb:
        within = _as_fit(within, config.limit_mb * 1e6) or within[:1]
    if len(within) == 1:
        return _single_file(within[0].path, config, found_bytes, skipped)
    size = sum(d.size for d in within)
    val = _as_fit(within, config.val_fraction * size) or [min(within, key=lambda d: d.size)]
    held_out = {d.name for d in val}
    train = tuple(d for d in within if d.name not in held_out)
    return Corpus(config.corpus, train, tuple(val), found_bytes, skipped)


def _as_fit(documents: list[Document], budget: float) -> list[Document]:
    """Documents that together fit into ``budget`` bytes, taken in their order.

    None larger than a tenth of the budget, so that no single one decides; only if that leaves half
    of the budget unused, because documents are few or large, any that fits.
    """
    for largest in (0.1 * budget, budget):
        taken, left = [], budget
        for document in documents:
            if document.size <= min(left, largest):
                taken.append(document)
                left -= document.size
        if left <= 0.5 * budget:
            break
    return taken


def _single_file(path: Path, config: TextConfig, found_bytes: int = 0, skipped: int = 0) -> Corpus:
    """Split one file into a first part to train on and a last part to validate on."""
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"the corpus {shown(path)} is empty")
    stop = min(size, max(1, int(config.limit_mb * 1e6)) if config.limit_mb else size)
    stop = _next_line(path, stop, size)
    cut = _next_line(path, int(stop * (1 - config.val_fraction)), stop)
    train = Document(path.name + " (first part)", path, 0, cut)
    val = Document(path.name + " (last part)", path, cut, stop)
    return Corpus(config.corpus, (train,), (val,), found_bytes or size, skipped)


def _next_line(path: Path, near: int, end: int) -> int:
    """Move a position past the next line end, or at least to where a character begins."""
    try:
        with open(path, "rb") as f:
            f.seek(near)
            ahead = f.read(min(4096, end - near))
    except OSError as e:
        raise UserError(f"cannot read {shown(path)}: {e.strerror}") from None
    line_end = ahead.find(b"\n") + 1
    if line_end:
        return near + line_end
    inside = 0  # UTF-8 continues a character with bytes 10xxxxxx
    while inside < len(ahead) and ahead[inside] & 0xC0 == 0x80:
        inside += 1
    return near + inside
