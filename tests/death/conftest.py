"""A study of seconds, and how to make others like it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import quick_settings

import minirelu as mr
from minirelu.death.study import Plan, Study

ARMS = ("base", "twin", "half_rate", "double_rate")


def study_settings(corpus: Path, **train) -> mr.Config:
    """Tiny models that lose many units: a high rate, no slack in their biases."""
    options = dict(
        steps=48, history_every=2, history_tokens=1024, keep_optimizer_at=(8, 16, 24, 32, 40),
        learning_rate=0.1, warmup_steps=4, data_seed=0,
    )  # fmt: skip
    return quick_settings(corpus, **(options | train))


def make_study(folder: Path, corpus: Path, seeds: int = 2, plan=None, **train) -> Study:
    return Study.make(folder, study_settings(corpus, **train), Plan(seeds=seeds, **(plan or {})))


@pytest.fixture(scope="session")
def study(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study; for reading only."""
    made = make_study(tmp_path_factory.mktemp("studies") / "study", text_file, plan={"swaps": 2})
    made.train(ARMS)
    return made
