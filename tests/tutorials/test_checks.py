"""What the checks of exercises say: to right answers, to typical wrong ones, and to anything."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tutorials"))

import build
import checks_01
import checks_02
import common

EXPECTED = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])


class Hostile:
    """An object with which nothing works."""

    def __array__(self, *_, **__):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __len__ = __iter__ = __eq__ = __repr__
    __hash__ = None


ANYTHING = [
    None, ..., 3, -1.5, True, "text", b"bytes", "", [], {}, (), [[1, 2], [3]], object(), Hostile(),
    np.array(["a"]), np.array(None), np.full((2, 3), np.nan), np.full(6, np.inf), np.zeros((0, 3)),
    np.zeros((2, 3, 4)), np.zeros((2, 3), dtype=complex), lambda: 1, float("nan"), 10**400,
    (None, None), (np.zeros(2), "x"), ValueError("x"),
]  # fmt: skip


def said(capsys) -> str:
    text = capsys.readouterr().out
    assert text.count("\n") == 1, text
    return text.rstrip("\n")


def test_examples():
    for module in (common, build):
        failed, tried = doctest.testmod(module)
        assert tried and not failed


@pytest.mark.parametrize(
    "given, sentence",
    [
        (EXPECTED, "a: right."),
        (EXPECTED.tolist(), "a: right."),
        (EXPECTED.astype(np.float32), "a: right."),
        (EXPECTED * (1 + 1e-8), "a: right."),
        (None, "a: not answered yet."),
        (..., "a: not answered yet."),
        (EXPECTED + 1, "a: not yet. It looks as if the 1 is one too many."),
        (EXPECTED.T, "a: not yet. Its shape is (3, 2), and should be (2, 3); it looks transposed."),
        (EXPECTED.ravel(), "a: not yet. Its shape is (6,), and should be (2, 3)."),
        (-EXPECTED, "a: not yet. The sign is the wrong way round."),
        (
            3 * EXPECTED,
            "a: not yet. Every number is 3 times what it should be: a factor is missing.",
        ),
        (np.where(EXPECTED > 4, EXPECTED, 0), "a: not yet. 2 of 6 numbers are right."),
        (np.where(EXPECTED > 4, np.nan, 1), "a: not yet. 2 of its numbers are NaN or infinite."),
        ("text", "a: not yet. It should be numbers; this is str."),
        ([[1, 2], [3]], "a: not yet. It should be numbers; this is list."),
        (np.zeros, "a: not yet. This is a function; call it, and give what it returns."),
    ],
)
def test_check(given, sentence, capsys):
    right = common.check("a", given, EXPECTED, {"the 1 is one too many": EXPECTED + 1})
    assert said(capsys) == sentence
    assert right is (sentence == "a: right.")


def test_check_of_square_matrices_and_of_single_numbers(capsys):
    square = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert not common.check("a", square.T, square)
    assert said(capsys) == "a: not yet. It looks transposed."
    assert common.check("a", 1 / 3, 1 / 3) and said(capsys)
    assert not common.check("a", 0.25, 1 / 3)
    assert "not yet" in said(capsys)
    assert not common.check("a", 1e-12, 0.0)
    assert said(capsys) == "a: not yet. The number is another one."


@pytest.mark.parametrize("given", ANYTHING, ids=range(len(ANYTHING)))
def test_anything_gets_a_sentence(given, capsys):
    """As an answer, as a function, and as what a function returns."""
    checks = [
        lambda x: common.check("a", x, EXPECTED),
        lambda x: checks_01.check_share_on(x, EXPECTED),
        checks_01.check_pattern,
        checks_01.check_losses,
        checks_02.check_wrong_line,
        checks_02.check_unembedding_backward,
        checks_02.check_squared_relu_backward,
    ]
    for check in checks:
        assert check(given) is False
        assert (
            "not yet" in (sentence := said(capsys))
            or "not answered" in sentence
            or ("it raised" in sentence)
        )
    for check in (checks[2], checks[3], checks[5], checks[6]):
        assert check(lambda *_: given) is False
        assert capsys.readouterr().out.strip().endswith(".")


@pytest.mark.parametrize("error", [ValueError("one\ntwo"), RecursionError(), Exception(Hostile())])
def test_what_a_function_raises_is_told(error, capsys):
    def raises(*_):
        raise error

    for check in (checks_01.check_pattern, checks_01.check_losses):
        assert not check(raises)
        assert f"it raised {type(error).__name__} (" in said(capsys)
    assert not checks_02.check_squared_relu_backward(lambda: None)
    assert "it raised TypeError" in said(capsys)


def test_a_function_that_changes_its_arguments_does_no_harm(capsys):
    def changes(dy, x):
        result = 2 * dy * np.maximum(x, 0)
        dy[:] = x[:] = 0
        return result

    assert checks_02.check_squared_relu_backward(changes)


def softmax(s, axis=-1):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def masked(q, k, scale=True):
    s = q @ k.T / np.sqrt(q.shape[1] if scale else 1)
    return np.where(np.triu(np.ones(s.shape, dtype=bool), 1), -np.inf, s)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda q, k: softmax(masked(q, k)), "right."),
        (lambda q, k: softmax(masked(q, k, scale=False)), "sqrt(D) is missing"),
        (lambda q, k: softmax(q @ k.T / np.sqrt(3)), "not masked"),
        (lambda q, k: np.tril(softmax(q @ k.T / np.sqrt(3))), "after the softmax"),
        (lambda q, k: softmax(np.tril(q @ k.T / np.sqrt(3))), "not to -inf"),
        (lambda q, k: softmax(masked(q, k), axis=0), "over the queries"),
        (lambda q, k: softmax(masked(k, q)), "changed places"),
        (lambda q, k: masked(q, k), "the softmax is missing"),
        (lambda q, k: q, "shape is (6, 3)"),
    ],
)
def test_pattern(answer, words, capsys):
    assert checks_01.check_pattern(answer) is (words == "right.")
    assert words in said(capsys)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda post: (post > 0).mean(axis=1), "right."),
        (lambda post: (post > 0).mean(axis=0), "the other axis"),
        (lambda post: (post > 0).sum(axis=1), "divide by their number"),
        (lambda post: (post == 0).mean(axis=1), "units that are off"),
        (lambda post: (post >= 0).mean(axis=1), "0 counts as on"),
        (lambda post: (post > 0).mean(), "one for each"),
        (lambda post: post.mean(axis=1), "only whether a unit is on"),
    ],
)
def test_share_on(answer, words, capsys):
    post = np.maximum(np.random.default_rng(0).normal(size=(8, 12)), 0)
    assert checks_01.check_share_on(answer(post), post) is (words == "right.")
    assert words in said(capsys)


def log_p(logits, targets):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    all_of_them = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return all_of_them[np.arange(len(targets)), targets]


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda z, t: -log_p(z, t), "large logits: right."),
        (lambda z, t: log_p(z, t), "the sign is missing"),
        (lambda z, t: -log_p(z, t).mean(), "this is the mean"),
        (lambda z, t: -log_p(z, t) / np.log(2), "bits, not nats"),
        (lambda z, t: np.exp(log_p(z, t)), "take -log"),
        (lambda z, t: -np.log(softmax(z)), "pick the target's"),
        (lambda z, t: -np.log(softmax(z, axis=0)[np.arange(6), t]), "over the positions"),
        (
            lambda z, t: -np.log((np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))[range(6), t]),
            "exp overflowed",
        ),
    ],
)
def test_losses(answer, words, capsys):
    assert checks_01.check_losses(answer) is words.endswith("right.")
    assert words in capsys.readouterr().out


def test_wrong_line(capsys):
    assert checks_02.check_wrong_line("dscores")
    assert "right." in said(capsys)
    for name in ("dz", "dpattern", "dv", "dq", "dk", "dx", "dw"):
        assert not checks_02.check_wrong_line(name)
        assert "not yet." in said(capsys)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda d, x, W: (d @ W, d.T @ x), ["dx: right.", "dW_E: right."]),
        (lambda d, x, W: (d @ W, x.T @ d), ["dx: right.", "W_E has one row per token"]),
        (lambda d, x, W: (d.T @ x, d @ W), ["changed places", "changed places"]),
        (lambda d, x, W: (d @ W, d.T @ x / 5), ["dx: right.", "number of tokens"]),
        (lambda d, x, W: (-(d @ W), d.T @ x), ["The sign", "dW_E: right."]),
        (lambda d, x, W: (d @ W, None), ["dx: right.", "not answered yet"]),
        (lambda d, x, W: d @ W, ["Return two arrays"]),
    ],
)
def test_unembedding_backward(answer, words, capsys):
    right = words == ["dx: right.", "dW_E: right."]
    assert checks_02.check_unembedding_backward(answer) is right
    lines = capsys.readouterr().out.splitlines()
    assert all(word in line for word, line in zip(words, lines, strict=True)), lines


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda dy, x: dy * 2 * np.maximum(x, 0), "right."),
        (lambda dy, x: dy * np.maximum(x, 0), "factor 2"),
        (lambda dy, x: dy * (x > 0), "plain ReLU"),
        (lambda dy, x: dy * 2 * x, "units that are off"),
        (lambda dy, x: 2 * np.maximum(x, 0), "dy is missing"),
        (lambda dy, x: np.maximum(x, 0) ** 2, "the forward"),
        (lambda dy, x: -dy * 2 * np.maximum(x, 0), "The sign"),
    ],
)
def test_squared_relu_backward(answer, words, capsys):
    assert checks_02.check_squared_relu_backward(answer) is (words == "right.")
    assert words in said(capsys)


def test_hints_of_tutorial_1_for_masks_axes_and_large_logits(capsys):
    def reversed_mask(q, k):
        later = np.triu(np.ones((len(q), len(q)), dtype=bool), 1)
        with np.errstate(all="ignore"):
            return checks_01._shares(np.where(later, q @ k.T / np.sqrt(q.shape[1]), -np.inf))

    assert not checks_01.check_pattern(reversed_mask)
    assert "wrong way round" in said(capsys)
    assert not checks_01.check_pattern(lambda q, k: checks_01._shares(q @ k.T))
    assert "neither the mask nor" in said(capsys)
    post = np.maximum(np.random.default_rng(0).normal(size=(8, 12)), 0)
    assert not checks_01.check_share_on((post > 0).sum(axis=1) / 8, post)
    assert "number of tokens" in said(capsys)

    def log_of_share(logits, targets):
        return -np.log(checks_01._shares(logits)[np.arange(len(targets)), targets])

    assert not checks_01.check_losses(log_of_share)
    assert "took its log" in capsys.readouterr().out
