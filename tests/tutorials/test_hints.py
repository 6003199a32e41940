"""What the checks of exercises say to right answers, and to typical wrong ones."""

from __future__ import annotations

import hints_01_02
import hints_03_04_05
import pytest

ROWS = [
    pytest.param(check, answer, words, id=f"{check.__name__}-{i}")
    for check, rows in {**hints_01_02.HINTS, **hints_03_04_05.HINTS}.items()
    for i, (answer, *words) in enumerate(rows)
]


@pytest.mark.parametrize("check, answer, words", ROWS)
def test_an_answer_gets_its_hint(check, answer, words, capsys):
    assert check(answer) is all(word.endswith("right.") for word in words)
    lines = capsys.readouterr().out.splitlines()
    assert all(word in line for word, line in zip(words, lines, strict=True)), lines
