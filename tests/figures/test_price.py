"""What a setting costs: real runs that differ in it, side by side."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import new_run

import minirelu as mr
from minirelu.errors import UserError
from minirelu.figures import KINDS


@pytest.fixture(scope="module")
def runs(text_file, tmp_path_factory) -> list[mr.Run]:
    folder = tmp_path_factory.mktemp("price")
    made = [
        new_run(folder, text_file, f"l1={l1}-{seed}", l1=l1, seed=seed, learning_rate=0.05)
        for l1, seed in ((0.3, 0), (0.0, 0), (0.0, 1))
    ]
    assert all(mr.train(run) for run in made)
    return made


def test_every_point_is_what_the_runs_measured(runs):
    loss, use, silent, seconds = KINDS["price"].data(runs)["panels"]
    assert [text for _, text in loss["x"]["ticks"]] == ["0", "0.3"]  # in the order of the setting
    last = [run.probes()[-1] for run in runs]
    two_seeds = [last[1]["val_loss"], last[2]["val_loss"]]
    (line,) = loss["lines"]
    assert line["y"] == pytest.approx([np.mean(two_seeds), last[0]["val_loss"]])
    assert (line["low"][0], line["high"][0]) == (min(two_seeds), max(two_seeds))
    assert use["lines"][1]["y"][1] == last[0]["per_token"][1] < use["lines"][1]["y"][0]
    never = np.mean(runs[0].counts(12).tokens_on[0] == 0)
    assert silent["lines"][0]["y"][1] == never
    assert min(seconds["lines"][0]["y"]) > 0


def test_runs_that_differ_in_two_settings_or_none_are_refused(runs, text_file, tmp_path):
    other = new_run(tmp_path, text_file, l1=0.1, weight_decay=0.0)
    assert mr.train(other)
    with pytest.raises(UserError, match="differ in train.weight_decay, train.l1|train.l1"):
        KINDS["price"].data([*runs, other])
    with pytest.raises(UserError, match="these differ in none but the seed"):
        KINDS["price"].data(runs[1:])
