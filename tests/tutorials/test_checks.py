"""What the checks of exercises say: to right answers, to typical wrong ones, and to anything."""

from __future__ import annotations

import doctest

import build
import checks_01
import checks_02
import checks_03
import checks_04
import checks_05
import common
import numpy as np
import pytest

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
CHECKS = [
    checks_03.check_steps_to_90_percent,
    checks_03.check_linear_lr,
    checks_03.check_adam_l2,
    checks_04.check_arithmetic_left,
    checks_04.check_dW_in_from_pairs,
    checks_04.check_attainable,
    checks_05.check_per_batch,
    checks_05.check_unused,
    checks_05.check_fires_on,
]


def printed(capsys) -> str:
    text = capsys.readouterr().out
    assert text.count("\n") == 1, text
    return text.rstrip("\n")


def test_docstring_examples_hold():
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
def test_check_says_what_is_right_or_wrong(given, sentence, capsys):
    right = common.check("a", given, EXPECTED, {"the 1 is one too many": EXPECTED + 1})
    assert printed(capsys) == sentence
    assert right is (sentence == "a: right.")


def test_check_handles_square_matrices_and_single_numbers(capsys):
    square = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert not common.check("a", square.T, square)
    assert printed(capsys) == "a: not yet. It looks transposed."
    assert common.check("a", 1 / 3, 1 / 3) and printed(capsys)
    assert not common.check("a", 0.25, 1 / 3)
    assert "not yet" in printed(capsys)
    assert not common.check("a", 1e-12, 0.0)
    assert printed(capsys) == "a: not yet. It is a different number."


@pytest.mark.parametrize("given", ANYTHING, ids=range(len(ANYTHING)))
def test_any_answer_gets_a_sentence(given, capsys):
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
            "not yet" in (sentence := printed(capsys))
            or "not answered" in sentence
            or ("it raised" in sentence)
        )
    for check in (checks[2], checks[3], checks[5], checks[6]):
        assert check(lambda *_: given) is False
        assert capsys.readouterr().out.strip().endswith(".")


@pytest.mark.parametrize("given", ANYTHING, ids=range(len(ANYTHING)))
def test_any_answer_gets_a_sentence_in_tutorials_3_to_5(given, capsys):
    """As an answer, and as what a function returns."""
    for check in CHECKS:
        for answer in (given, lambda *_: given):
            assert check(answer) is False
            sentence = printed(capsys)
            assert any(s in sentence for s in ("not yet. ", "not answered yet.", "it raised"))


@pytest.mark.parametrize("check", CHECKS[1:], ids=lambda check: check.__name__)
def test_an_unanswered_exercise_is_said_to_be_unanswered(check, capsys):
    assert not check(lambda *_: None)
    assert printed(capsys).endswith(": not answered yet.")
    assert not check(np.ones(3))
    assert printed(capsys).endswith("not yet. Give a function.")


@pytest.mark.parametrize("error", [ValueError("one\ntwo"), RecursionError(), Exception(Hostile())])
def test_what_a_function_raises_is_reported(error, capsys):
    def raises(*_):
        raise error

    for check in (checks_01.check_pattern, checks_01.check_losses):
        assert not check(raises)
        assert f"it raised {type(error).__name__} (" in printed(capsys)
    assert not checks_02.check_squared_relu_backward(lambda: None)
    assert "it raised TypeError" in printed(capsys)


def test_a_function_gets_copies_of_the_arguments(capsys):
    def changes(dy, x):
        result = 2 * dy * np.maximum(x, 0)
        dy[:] = x[:] = 0
        return result

    assert checks_02.check_squared_relu_backward(changes)
