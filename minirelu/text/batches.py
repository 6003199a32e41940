"""Token files on disk, the batch of every step, the probe, and the baselines."""

from __future__ import annotations

import math
import tokenize
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from minirelu.errors import UserError, one_line, shown
from minirelu.text.corpus import Document, OnRead
from minirelu.text.tokenizer import Tokenizer

_COUNTED_TOKENS = 20_000_000  # training tokens that the baselines count, at most


def write_tokens(
    file: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    on_read: OnRead = lambda n: None,
    at_least: float = math.inf,
) -> int:
    """Encode documents one after the other into an ``.npy`` file, in bounded memory.

    Parameters
    ----------
    file : Path
    documents : iterable of Document
    tokenizer : Tokenizer
        its ``end`` token follows every document.
    on_read : callable
        called with the number of bytes, piece by piece: for a progress bar.
    at_least : float
        stop once there are this many tokens.

    Returns
    -------
    int
        number of tokens written.
    """
    dtype = np.dtype("<u2") if tokenizer.size <= 1 << 16 else np.dtype("<u4")

    def header(n: int) -> dict[str, object]:
        return {"descr": dtype.str, "fortran_order": False, "shape": (n,)}

    n = 0
    with open(file, "wb") as f:
        # NumPy pads the header so that a longer shape fits in the same place: it is written
        # again when the number of tokens is known.
        np.lib.format.write_array_header_1_0(f, header(0))
        for document in documents:
            for text in document.chunks():
                n += _append(f, tokenizer.encode(text), dtype)
                on_read(len(text.encode("utf-8")))
                if n >= at_least:
                    break
            if tokenizer.end is not None:
                n += _append(f, [tokenizer.end], dtype)
            if n >= at_least:
                break
        f.seek(0)
        np.lib.format.write_array_header_1_0(f, header(n))
    return n


def _append(f, ids: list[int], dtype: np.dtype) -> int:
    f.write(np.asarray(ids, dtype=dtype).tobytes())
    return len(ids)


def open_tokens(file: Path, ndim: int = 1) -> np.ndarray:
    """Map an ``.npy`` file of tokens into memory, read-only; nothing is loaded yet.

    Raises
    ------
    UserError
        where it is not such a file, claims more than it holds, or holds other than whole numbers.
    """
    try:
        tokens = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as e:
        raise UserError(f"cannot read the tokens {shown(file)}: {one_line(e)}") from None
    whole = isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu"
    if not whole or tokens.ndim != ndim or tokens.size == 0:
        raise UserError(f"{shown(file)} is damaged: it holds no tokens of the right kind and shape")
    return tokens


def batch(tokens: np.ndarray, step: int, batch_size: int, n_ctx: int, seed: int) -> np.ndarray:
    """Return the batch of one step: a pure function of ``seed`` and ``step``.

    Nothing has to be remembered to resume, and any step's batch can be made again. Sequences
    start at uniformly drawn places.

    Parameters
    ----------
    tokens : ndarray, (n,)
    step : int
        1 for the first update.
    batch_size, n_ctx, seed : int

    Returns
    -------
    ndarray of int64, (batch_size, n_ctx + 1)
        ``[:, :-1]`` are the inputs, ``[:, 1:]`` the targets.

    Examples
    --------
    >>> batch(np.arange(100), step=1, batch_size=2, n_ctx=3, seed=0)
    array([[50, 51, 52, 53],
           [86, 87, 88, 89]])
    """
    rng = np.random.default_rng([seed, step])
    starts = rng.integers(0, len(tokens) - n_ctx, size=batch_size)
    return np.stack([tokens[i : i + n_ctx + 1] for i in starts]).astype(np.int64)


def consecutive(tokens: np.ndarray, n_ctx: int, n_tokens: int | None = None) -> np.ndarray:
    """View tokens as sequences, one after the other: each token is an input once.

    Parameters
    ----------
    tokens : ndarray, (n,)
    n_ctx : int
    n_tokens : int, optional
        inputs at most; rounded down to whole sequences.

    Returns
    -------
    ndarray, (S, n_ctx + 1)
        ``[:, :-1]`` are the inputs, ``[:, 1:]`` the targets; S may be 0.

    Examples
    --------
    >>> consecutive(np.arange(8), 3)
    array([[0, 1, 2, 3],
           [3, 4, 5, 6]])
    """
    S = min(len(tokens) - 1, len(tokens) if n_tokens is None else n_tokens) // n_ctx
    if S < 1:
        return np.empty((0, n_ctx + 1), tokens.dtype)
    return np.lib.stride_tricks.sliding_window_view(tokens, n_ctx + 1)[::n_ctx][:S]


def make_probe(tokens: np.ndarray, n_tokens: int, n_ctx: int) -> np.ndarray:
    """Cut the fixed probe from the validation tokens: whole sequences, evenly spread, disjoint.

    Parameters
    ----------
    tokens : ndarray, (n,)
    n_tokens : int
        wanted; rounded down to whole sequences (at least one), and to what is available.
    n_ctx : int

    Returns
    -------
    ndarray of int64, (sequences, n_ctx + 1)

    Examples
    --------
    >>> make_probe(np.arange(20), n_tokens=6, n_ctx=3)
    array([[ 0,  1,  2,  3],
           [16, 17, 18, 19]])
    """
    n = max(1, n_tokens // n_ctx)
    n = min(n, len(tokens) // (n_ctx + 1))
    starts = np.linspace(0, len(tokens) - n_ctx - 1, n).astype(np.int64)
    return np.stack([tokens[i : i + n_ctx + 1] for i in starts]).astype(np.int64)


def make_second_probe(
    tokens: np.ndarray, probe_sequences: int, n_tokens: int, n_ctx: int
) -> np.ndarray:
    """Cut another probe, which shares no token with the first one: what that says, it confirms.

    Parameters
    ----------
    tokens : ndarray, (n,)
    probe_sequences : int
        how many sequences :func:`make_probe` cut from the same tokens.
    n_tokens : int
        wanted; rounded down to whole sequences (at least one), and to what is left.
    n_ctx : int

    Returns
    -------
    ndarray of int64, (sequences, n_ctx + 1)
        evenly spread over what is left; no sequences where nothing is.

    Examples
    --------
    >>> make_second_probe(np.arange(20), probe_sequences=2, n_tokens=6, n_ctx=3)
    array([[ 4,  5,  6,  7],
           [12, 13, 14, 15]])
    """
    taken = np.linspace(0, len(tokens) - n_ctx - 1, probe_sequences).astype(np.int64)
    starts = np.arange(0, len(tokens) - n_ctx, n_ctx + 1)
    after = np.searchsorted(taken, starts)  # the first probe sequence at this place or later
    far = np.full(1, 1 << 62)
    distance = np.minimum(
        np.concatenate([taken, far])[after] - starts, starts - np.concatenate([-far, taken])[after]
    )
    starts = starts[distance > n_ctx]
    n = min(max(1, n_tokens // n_ctx), len(starts))
    starts = starts[np.linspace(0, len(starts) - 1, n).astype(np.int64)]
    empty = np.empty((0, n_ctx + 1), np.int64)
    return np.stack([tokens[i : i + n_ctx + 1] for i in starts]).astype(np.int64) if n else empty


def baselines(tokens: np.ndarray, probe: np.ndarray, d_vocab: int) -> dict[str, float]:
    """Losses that a model must beat to have learned anything, in nats per token of the probe.

    * ``uniform``: every token equally likely, ln V.
    * ``unigram``: tokens by their frequency in training, p₁(b) = (n_b + 1) / (n + V).
    * ``bigram``: by the token before, smoothed as Witten & Bell (1991, method C):
      p₂(b|a) = (n_ab + k_a p₁(b)) / (n_a + k_a), with k_a the number of different tokens seen
      after a.

    Parameters
    ----------
    tokens : ndarray, (n,)
        training tokens.
    probe : ndarray, (sequences, n_ctx + 1)
    d_vocab : int

    Returns
    -------
    dict

    Examples
    --------
    >>> text = np.array([0, 1] * 50)
    >>> {name: round(nats, 2) for name, nats in baselines(text, text[None, :20], 2).items()}
    {'uniform': 0.69, 'unigram': 0.69, 'bigram': 0.01}
    """
    tokens = np.asarray(tokens[:_COUNTED_TOKENS], dtype=np.int64)
    before, after = probe[:, :-1].ravel(), probe[:, 1:].ravel()
    unigram = (np.bincount(tokens, minlength=d_vocab) + 1) / (len(tokens) + d_vocab)

    pairs, n_pair = np.unique(tokens[:-1] * d_vocab + tokens[1:], return_counts=True)
    n_before = np.bincount(pairs // d_vocab, weights=n_pair, minlength=d_vocab)
    n_kinds = np.bincount(pairs // d_vocab, minlength=d_vocab)
    wanted = before * d_vocab + after
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[at] == wanted, n_pair[at], 0)
    # a token never seen before anything falls back on the unigram
    unseen = n_before[before] == 0
    kinds = np.where(unseen, 1, n_kinds[before])
    bigram = (seen + kinds * unigram[after]) / (n_before[before] + kinds)
    return {
        "uniform": float(np.log(d_vocab)),
        "unigram": float(-np.log(unigram[after]).mean()),
        "bigram": float(-np.log(bigram).mean()),
    }
