"""Answers to the exercises of tutorials 3, 4 and 5, and words of their hints; as hints_01_02.py."""

from __future__ import annotations

import math

import checks_03
import checks_04
import checks_05
import numpy as np


def line(low=None, first=None, last=None, warm=True):
    """A linear_lr; ``low(peak, final)`` is its end, ``first`` to ``last`` its steps."""

    def linear_lr(step, steps, peak, warmup, final):
        if warm and step < warmup:
            return peak * step / warmup
        start = warmup if first is None else first
        stop = steps + warmup if last == "late" else steps
        lowest = final * peak if low is None else low(peak, final)
        return peak + (lowest - peak) * (step - start) / (stop - start)

    return linear_lr


def cosine(step, steps, peak, warmup, final):
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)


def adam(coupled=1.0, decoupled=0.0, correct=True, keep=False, only_p=False):
    def adam_l2(p, g, m, v, step, lr, beta1, beta2, eps, decay):
        g = g + coupled * decay * p
        new_m, new_v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        fix1, fix2 = (1 - beta1**step, 1 - beta2**step) if correct else (1, 1)
        move = new_m / fix1 / (np.sqrt(new_v / fix2) + eps)
        new_p = p - lr * (move + decoupled * decay * p)
        if only_p:
            return new_p
        return (new_p, m, v) if keep else (new_p, new_m, new_v)

    return adam_l2


def dW_in(t, j, d, x, F, rows=None, ones=False, once=False):
    out = np.zeros((rows or F, x.shape[1]))
    add = x[t] if ones else d[:, None] * x[t]
    if once:
        out[j] += add
    else:
        np.add.at(out, j, add)
    return out


def batches(o, batch_tokens, rest=False):
    n = batch_tokens // o.shape[1]
    stop = len(o) if rest else len(o) // n * n
    return [o[b : b + n].any(axis=(0, 1)).mean() for b in range(0, stop, n)]


def last_dropped(o, batch_tokens):
    """Right only where a rest is left over."""
    n = batch_tokens // o.shape[1]
    return np.mean([o[b : b + n].any(axis=(0, 1)).mean() for b in range(0, len(o) - n, n)])


def one_batch_fails(o, batch_tokens):
    """Right only where there is more than one batch."""
    shares = batches(o, batch_tokens)
    return np.mean(shares) if len(shares) > 1 else 0.0


def cut_anywhere(o, batch_tokens):
    flat = o.reshape(-1, o.shape[2])
    stops = range(batch_tokens, len(flat) + 1, batch_tokens)
    return np.mean([flat[stop - batch_tokens : stop].any(axis=0).mean() for stop in stops])


def used(o):
    return np.cumsum(o, axis=1) > 0


def on_and_total(o_j, tokens, V, shortest=None):
    shortest = V if shortest is None else shortest
    on = np.bincount(tokens[o_j], minlength=shortest)
    return on, np.bincount(tokens.ravel(), minlength=shortest)


def share(o_j, tokens, V, shortest=None):
    on, occurrences = on_and_total(o_j, tokens, V, shortest)
    return on / np.maximum(occurrences, 1)


def zero_by_zero(*given):
    on, occurrences = on_and_total(*given)
    with np.errstate(invalid="ignore"):
        return on / occurrences


HINTS = {
    checks_03.check_steps_to_90_percent: [
        ([22, 45, 2302], "right."),
        (np.array([22.0, 45.0, 2302.0]), "right."),
        ([21, 44, 2301], "rounded down"),
        (np.log(0.1) / np.log([0.9, 0.95, 0.999]), "round up"),
        ([1, 2, 105], "solved beta**step"),
        ([10, 20, 1000], "rule of thumb"),
        ([22, 45], "shape is (2,)"),
    ],
    checks_03.check_linear_lr: [
        (line(), "right."),
        (line(low=lambda peak, final: 0.0), "down to 0"),
        (line(low=lambda peak, final: final), "down to final, not"),
        (line(first=0), "starts at step 0"),
        (line(last="late"), "takes steps steps"),
        (line(warm=False), "warm-up is missing"),
        (cosine, "the cosine still"),
        (lambda step, steps, peak, warmup, final: step / 0, "it raised ZeroDivisionError"),
        (lambda *_: "fast", "should be numbers"),
        (lambda step: step, "it raised TypeError"),
    ],
    checks_03.check_adam_l2: [
        (adam(), "right."),
        (adam(coupled=0, decoupled=1), "decoupled"),
        (adam(coupled=0), "the decay is missing"),
        (adam(coupled=-1), "wrong sign"),
        (adam(correct=False), "bias correction"),
        (adam(keep=True), "not the new ones"),
        (adam(only_p=True), "Return three arrays"),
        (lambda p, *_: (p, p), "shape is (2, 6)"),
    ],
    checks_04.check_arithmetic_left: [
        (lambda s: (1 + 5 * s) / 6, "right."),
        (lambda s: 5 * s / 6, "first product is missing"),
        (lambda s: s, "all six"),
        (lambda s: 1 + 5 * s, "division by the six"),
        (lambda s: (5 + s) / 6, "only one"),
        (lambda s: 1 - (1 + 5 * s) / 6, "what is saved"),
    ],
    checks_04.check_attainable: [
        (lambda i, flops, b: min(flops, i * b), "right."),
        (lambda i, flops, b: max(flops, i * b), "the larger"),
        (lambda i, flops, b: i * b, "flat roof is missing"),
        (lambda i, flops, b: flops, "slope is missing"),
        (lambda i, flops, b: min(flops, b / i), "divided the bytes"),
        (lambda i, flops, b: 2 * min(flops, i * b), "is 2 times"),
    ],
    checks_04.check_dW_in_from_pairs: [
        (dW_in, "right."),
        (lambda *a: dW_in(*a, once=True), "use np.add.at"),
        (lambda *a: dW_in(*a, ones=True), "d is missing"),
        (lambda t, j, d, x, F: dW_in(t, t, d, x, len(x)), "by token"),
        (lambda t, j, d, x, F: dW_in(t, j, d, x, j.max() + 1), "rows of silent units"),
        (lambda *a: dW_in(*a).T, "transposed"),
        (lambda *a: -dW_in(*a), "sign"),
    ],
    checks_05.check_per_batch: [
        (lambda o, n: np.mean(batches(o, n)), "right."),
        (lambda o, n: o.any(axis=(0, 1)).mean(), "all sequences as one"),
        (lambda o, n: o.any(axis=1).mean(), "use per sequence"),
        (lambda o, n: o.mean(), "use per token"),
        (lambda o, n: np.mean(batches(o, n, rest=True)), "unfilled rest"),
        (last_dropped, "is left out where the batches fill all sequences exactly"),
        (one_batch_fails, "It is a different number"),
        (cut_anywhere, "within a sequence"),
        (batches, "take their mean"),
        (lambda o, n: 1 - np.mean(batches(o, n)), "silent"),
    ],
    checks_05.check_unused: [
        (lambda o: (~used(o)).mean(axis=(0, 2)), "right."),
        (lambda o: used(o).mean(axis=(0, 2)), "what was used"),
        (lambda o: (~o).mean(axis=(0, 2)), "by itself"),
        (lambda o: 1 - np.cumsum(o, axis=1).mean(axis=(0, 2)), "> 0 is missing"),
        (lambda o: np.append(1, (~used(o)).mean(axis=(0, 2))[:-1]), "first entry is for t = 1"),
        (lambda o: (~used(o.any(axis=0)[None])).mean(axis=(0, 2)), "over sequences, too"),
        (lambda o: (~used(o)).mean(axis=2), "mean over sequences is missing"),
        (lambda o: (~used(o)).sum(axis=2).mean(axis=0), "not shares"),
    ],
    checks_05.check_fires_on: [
        (share, "right."),
        (zero_by_zero, "not 0 / 0"),
        (lambda *a: on_and_total(*a)[0], "numbers of tokens"),
        (lambda o_j, tokens, V: on_and_total(o_j, tokens, V)[0] / tokens.size, "by all tokens"),
        (lambda o_j, tokens, V: on_and_total(o_j, tokens, V)[0] / o_j.sum(), "other way round"),
        (lambda *a: share(*a, shortest=0), "minlength"),
    ],
}
