"""Search for a text that makes a hidden unit fire: gradients propose token swaps, forwards judge.

A swap of token a for token b at position t changes the unit's pre-activation, to first order, by
``(W_E[b] - W_E[a]) · gradient[t]`` (HotFlip, Ebrahimi et al. 2018). So one backward ranks all T * V
swaps; the best of every position are tried, and the best text found is where the next round begins
(AutoPrompt, Shin et al. 2020; Zou et al. 2023, which draws swaps at random). Where nothing gets
better a search begins again from random tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minirelu.config import ModelConfig
from minirelu.death.certified import by_rank, on_above
from minirelu.model.activation_functions import is_on
from minirelu.model.attention import attention_forward
from minirelu.model.embedding import embedding_forward
from minirelu.model.hooks import Hook
from minirelu.model.linear import linear_forward
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import (
    attention_params,
    block_backward,
    block_forward,
    forward,
    mlp_params,
    norm,
)
from minirelu.settings import Checked, setting

Array = np.ndarray
_AT_ONCE_BYTES = 1 << 24  # of activations held at a time; few enough to stay in cache


@dataclass(frozen=True)
class Budget(Checked):
    """How long to search for each unit."""

    texts: int = setting(
        int, "Texts tried for each unit, at most.", default=2048, low=1, high=1 << 30
    )
    length: int = setting(int, "Tokens of a text, at most.", default=16, low=1, high=1 << 20)
    each_round: int = setting(int, "Swaps tried after a gradient.", default=32, low=1, high=1 << 20)
    patience: int = setting(
        int, "Rounds without a better text before a new start.", default=4, low=1, high=1 << 20
    )


@dataclass
class Found:
    """What the search came to for one unit.

    ``text`` is the shortest that wakes it, at its last token; of a unit that was not woken the one
    that came closest. ``margin`` is how far above its threshold the unit is there, ``tried`` how
    many texts were looked at until it woke, ``swaps`` how many tokens had been swapped by then in
    the text of the start it woke from (0: it fired at once), ``starts`` how many starts it took.
    """

    unit: int
    woken: bool
    text: list[int]
    margin: float
    tried: int
    swaps: int
    starts: int


class Target:
    """Some units of a layer, each with its bias lowered by something: who is how far from firing.

    The *margin* of a unit at a token is its pre-activation less the threshold above which it is
    on; with topk, less the pre-activation it must beat. A unit fires where its margin is above 0.

    Parameters
    ----------
    params : mapping of ndarray
    config : ModelConfig
    layer : int
    units : int array, (U,)
    lowered : array, (U,), optional
        subtracted from each unit's bias, which a model without biases may lack.
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        config: ModelConfig,
        layer: int,
        units: Array,
        lowered: Array | None = None,
    ) -> None:
        self.params, self.config, self.layer = params, config, layer
        self.units = np.asarray(units)
        dtype = params["embed.W_E"].dtype
        self.lowered = np.zeros(len(self.units)) if lowered is None else np.asarray(lowered)
        W_in, b_in, _, _ = mlp_params(params, layer)
        self.W = W_in[self.units]  # (U, C)
        b = np.zeros(len(self.units)) if b_in is None else b_in[self.units]
        threshold = 0.0 if by_rank(config) else on_above(config.activation)
        self.b = (b - self.lowered - threshold).astype(dtype)  # (U,)
        self._unused = Parameters(config, dtype)  # gradients of weights, which nobody asked for

    def margins(self, tokens: Array, of: Array) -> Array:
        """Margins of unit ``of[i]`` (an index into ``units``) along ``tokens[i]``, (B, T)."""
        margins = np.empty(tokens.shape, self.W.dtype)
        for part in self._parts(tokens):
            x = self._mlp_input(tokens[part])  # (B, T, C)
            margins[part] = np.einsum("btc,bc->bt", x, self.W[of[part]]) + self.b[of[part], None]
            if by_rank(self.config):
                margins[part] -= self._to_beat(x, self.units[of[part]][:, None, None])[..., 0]
        return margins

    def closest(self, sequences: Array, length: int) -> tuple[Array, Array]:
        """Return where in a text (S, T) each unit comes closest: up to there, (U, length); margin.

        A window that the text's beginning cuts short goes on past the place.
        """
        T = sequences.shape[1]
        best = np.full(len(self.units), -np.inf)
        window = np.zeros((len(self.units), length), sequences.dtype)
        for part in self._parts(sequences):
            x = self._mlp_input(sequences[part])
            margins = x @ self.W.T + self.b  # (B, T, U)
            if by_rank(self.config):
                margins -= self._to_beat(x, np.broadcast_to(self.units, margins.shape))
            margins = np.concatenate(margins)  # (B * T, U), also of no units
            place = margins.argmax(axis=0)  # (U,)
            highest = margins[place, np.arange(len(self.units))]
            for u in np.flatnonzero(highest > best):
                best[u] = highest[u]
                s, t = divmod(int(place[u]), T)
                first = min(max(0, t + 1 - length), T - length)
                window[u] = sequences[part][s, first : first + length]
        return window, best

    def gradients(self, tokens: Array, of: Array, positions: Array) -> Array:
        """Gradients of unit ``of[i]``'s margin at ``positions[i]`` of ``tokens[i]``.

        With respect to the embeddings of all positions, (B, T, C). Only the blocks' own backward
        is at work: it gets nothing from above, and the one 1 at ``hook_pre`` where it comes by.
        """
        gradient = np.empty((*tokens.shape, self.config.d_model), self.W.dtype)
        for part in self._parts(tokens, layers=self.layer + 1):
            acts: dict[str, Array] = {}

            def keep(name: str, value: Array, acts: dict[str, Array] = acts) -> Array:
                acts[name] = value
                return value

            x = self._embed(tokens[part])
            for l in range(self.layer + 1):
                x = block_forward(x, self.params, l, self.config, keep)
            dx = np.zeros_like(x)
            dpre = self._one_hot(acts, self.units[of[part]], positions[part])
            for l in reversed(range(self.layer + 1)):
                dx = block_backward(dx, self.params, l, self.config, acts, self._unused, dpre)
            gradient[part] = dx  # x = W_E[tokens] + W_pos
        return gradient

    def _one_hot(self, acts: Mapping[str, Array], units: Array, positions: Array) -> Hook:
        """Hook of a backward that puts the gradient of the margins with respect to hook_pre in."""
        where = f"blocks.{self.layer}.mlp.hook_pre"
        pre, rows = acts[where], np.arange(len(units))
        d = np.zeros_like(pre)
        d[rows, positions, units] = 1
        if by_rank(self.config):  # margin = pre - what it must beat
            others = pre[rows, positions]
            others[rows, units] = -np.inf
            k = self.config.act_k
            if k < others.shape[1]:
                d[rows, positions, np.argsort(-others, axis=1, kind="stable")[:, k - 1]] = -1
        return lambda name, given: d if name == where else given

    def _to_beat(self, x: Array, units: Array) -> Array:
        """With topk: the k-th largest pre-activation of the other units, like ``units``."""
        W_in, b_in, _, _ = mlp_params(self.params, self.layer)
        pre = linear_forward(x, W_in.T, b_in)  # (B, T, F)
        k, F = self.config.act_k, pre.shape[-1]
        if k == F:
            return np.full(np.broadcast_shapes(units.shape, (*x.shape[:2], 1)), -np.inf, x.dtype)
        own = np.take_along_axis(pre, np.broadcast_to(units, (*x.shape[:2], units.shape[-1])), 2)
        ranked = np.partition(pre, (F - k - 1, F - k), axis=-1)
        kth, next_one = ranked[..., F - k, None], ranked[..., F - k - 1, None]
        return np.where(own < kth, kth, next_one)  # among the k largest itself: the one after

    def _embed(self, tokens: Array) -> Array:
        embed, pos_embed = embedding_forward(
            tokens, self.params["embed.W_E"], self.params["pos_embed.W_pos"]
        )
        return embed + pos_embed

    def _mlp_input(self, tokens: Array) -> Array:
        """What the layer's MLP reads, (B, T, C): nothing above it is computed."""
        x, block = self._embed(tokens), f"blocks.{self.layer}."
        for l in range(self.layer):
            x = block_forward(x, self.params, l, self.config)
        normalized = norm(self.params, block + "ln1", x, self.config)
        attention = attention_params(self.params, self.layer)
        x = x + attention_forward(normalized, attention, self.config.n_heads)[0]
        return norm(self.params, block + "ln2", x, self.config)

    def _parts(self, tokens: Array, layers: int = 1) -> list[slice]:
        """Cut sequences so that the activations of so many layers fit in bounded memory."""
        (B, T), config = tokens.shape, self.config
        each = 3 * max(config.mlp_widths) + 2 * config.n_heads * T + 8 * config.d_model
        at_once = max(1, _AT_ONCE_BYTES // (self.W.itemsize * T * each * layers))
        return [slice(i, i + at_once) for i in range(0, B, at_once)]


def search(
    target: Target,
    starts: Array,
    budget: Budget,
    seed: int = 0,
    on_tried: Callable[[int], object] = lambda n: None,
) -> list[Found]:
    """Search for texts that wake units, one text for each unit at a time, all units side by side.

    What one unit comes to does not depend on the others, round-off apart.

    Parameters
    ----------
    target : Target
    starts : int array, (U, T)
        where each unit's search begins. Later starts are random tokens.
    budget : Budget
        ``budget.length`` plays no part: texts are as long as the starts.
    seed : int
        same seed, same starts.
    on_tried : callable
        called with how many texts of the U * budget.texts have been tried, or need not be.

    Returns
    -------
    list of U Found

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> target = Target(mr.init_params(config), config, layer=0, units=np.array([3]))
    >>> (found,) = search(target, np.zeros((1, 6), int), Budget(texts=100))
    >>> found.unit, found.woken, len(found.text)
    (3, True, 1)
    """
    U, T = starts.shape
    if not U:
        return []
    W_E = target.params["embed.W_E"]
    draws = [np.random.default_rng([seed, target.layer, int(j)]) for j in target.units]
    text, margin, place = starts.astype(np.int64), np.full(U, -np.inf), np.zeros(U, int)
    tried, swaps, stuck, n_starts = (np.zeros(U, int) for _ in range(4))
    nearest, nearest_text = np.full(U, -np.inf), [list[int]() for _ in range(U)]

    def judge(candidates: list[Array], units: Array) -> None:
        """Try texts of each unit, (n, T) each, and go on with the best if it is better."""
        of = np.repeat(units, [len(c) for c in candidates])
        margins = target.margins(np.concatenate(candidates), of)
        for u, tokens in zip(units, candidates, strict=True):
            own, margins = margins[: len(tokens)], margins[len(tokens) :]
            tried[u] += len(tokens)
            stuck[u] += 1
            if not len(tokens) or own.max() <= margin[u]:
                continue
            i, place[u] = np.unravel_index(own.argmax(), own.shape)
            text[u], margin[u], stuck[u] = tokens[i], own.max(), 0
            swaps[u] += 1
            if margin[u] > nearest[u]:
                nearest[u] = margin[u]
                nearest_text[u] = tokens[i, : place[u] + 1].tolist()
        woken = units[margin[units] > 0]
        on_tried(len(of) + int((budget.texts - tried[woken]).sum()))

    def begin(units: Array) -> None:
        margin[units], n_starts[units], swaps[units] = -np.inf, n_starts[units] + 1, -1
        judge([text[u, None] for u in units], units)

    begin(np.arange(U))
    while (active := np.flatnonzero((margin <= 0) & (tried < budget.texts))).size:
        gradients = target.gradients(text[active], active, place[active])
        room = np.minimum(budget.each_round, budget.texts - tried)
        candidates = []
        for u, gradient in zip(active, gradients, strict=True):
            scores = gradient[: place[u] + 1] @ W_E.T  # later tokens play no part
            skip = budget.each_round * stuck[u]  # were tried in vain
            candidates.append(_best_swaps(text[u], scores, skip, room[u]))
        judge(candidates, active)
        again = active[(stuck[active] >= budget.patience) & (tried[active] < budget.texts)]
        for u in again:
            text[u] = draws[u].integers(0, len(W_E), T)
        if len(again):
            begin(again)

    woken = np.flatnonzero(margin > 0)
    shortest = shorten(target, woken, [nearest_text[u] for u in woken])
    for u, (short_text, short_margin) in zip(woken, shortest, strict=True):
        nearest_text[u], nearest[u] = short_text, short_margin
    return [
        Found(
            unit=int(j), woken=bool(margin[u] > 0), text=nearest_text[u], margin=float(nearest[u]),
            tried=int(tried[u]), swaps=int(swaps[u]), starts=int(n_starts[u]),
        )
        for u, j in enumerate(target.units)
    ]  # fmt: skip


def _best_swaps(text: Array, scores: Array, skip: int, n: int) -> Array:
    """Texts with one token swapped: the best swap of every position, then the second best, ...

    Parameters
    ----------
    text : int array, (T,)
    scores : array, (P, V)
        of every token at the first P positions; overwritten.
    skip, n : int
        leave out the first ``skip`` texts, and make the next ``n``.

    Returns
    -------
    int array, (n, T)
        or fewer rows, where no swaps are left.

    Examples
    --------
    >>> _best_swaps(np.array([0, 0, 0]), np.array([[9.0, 2, 3], [9.0, 5, 4]]), skip=1, n=2)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    P, V = scores.shape
    scores[np.arange(P), text[:P]] = -np.inf  # no swap
    ranks = min(V - 1, -(-(skip + n) // P))
    best = (
        np.argpartition(-scores, ranks - 1, axis=1)[:, :ranks] if ranks else np.empty((P, 0), int)
    )
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)  # (P, ranks)
    rank, position = np.divmod(np.arange(skip, max(skip, min(skip + n, P * ranks))), P)
    texts = np.repeat(text[None], len(rank), axis=0)
    texts[np.arange(len(rank)), position] = best[position, rank]
    return texts


def shorten(
    target: Target, of: Array, texts: Sequence[Sequence[int]]
) -> list[tuple[list[int], float]]:
    """Drop tokens of waking texts, from the front or one by one, while the unit still fires.

    Parameters
    ----------
    target : Target
    of : int array, (n,)
        which of the target's units each text wakes.
    texts : list of n lists of tokens

    Returns
    -------
    list of n (text, margin)
        cut after the token at which the unit fires.
    """
    result = []
    for u, given in zip(of, texts, strict=True):
        # a margin within round-off of 0 may be below it the next time
        best, margin = (_first_firing(target, u, [list(given)]) or [(list(given), 0.0)])[0]
        while shorter := _first_firing(target, u, _pieces(best)):
            best, margin = min(shorter, key=lambda found: (len(found[0]), -found[1]))
        result.append((best, margin))
    return result


def _pieces(text: list[int]) -> list[list[int]]:
    """Every proper ending of a text, and the text without one token.

    >>> _pieces([1, 2, 3])
    [[2, 3], [3], [1, 3], [1, 2]]
    """
    n = len(text)
    endings = [text[i:] for i in range(1, n)]
    return endings + [text[:i] + text[i + 1 :] for i in range(1, n)]


def _first_firing(target: Target, u: int, texts: list[list[int]]) -> list[tuple[list[int], float]]:
    """Of the texts that wake a unit, the part up to the token at which it fires, and its margin."""
    if not texts:
        return []
    padded = np.zeros((len(texts), max(map(len, texts))), np.int64)  # what follows plays no part
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    found = []
    for text, margins in zip(texts, target.margins(padded, np.full(len(texts), u)), strict=True):
        on = np.flatnonzero(margins[: len(text)] > 0)
        if len(on):
            found.append((text[: on[0] + 1], float(margins[on[0]])))
    return found


def fires(
    params: Mapping[str, Array],
    config: ModelConfig,
    layer: int,
    unit: int,
    text: Sequence[int],
    lowered: float = 0.0,
) -> bool:
    """Whether a unit is on at the last token of a text, by the model's own forward.

    Parameters
    ----------
    lowered : float
        as if the unit's bias were lower by this.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> [fires(mr.init_params(config), config, 0, 3, [1, 2], lowered) for lowered in (-1, 1)]
    [True, False]
    """

    def lower(pre: Array) -> Array:
        pre[..., unit] -= lowered
        return pre

    block = f"blocks.{layer}.mlp."
    post = block + "hook_post"
    edit = {block + "hook_pre": lower} if lowered else None
    _, acts = forward(params, np.array([text]), config, keep=[post], edit=edit)
    return bool(is_on(acts[post][0, -1, unit], config.activation.off))
