"""Causes of death that were planted: each experiment names the one that is there, or none."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

import minirelu as mr
from minirelu.death.experiments import EXPERIMENTS
from minirelu.death.experiments.replay import worst_window
from minirelu.death.experiments.twins import CONTROL, RATIO
from minirelu.death.history import History
from minirelu.death.study import Plan, Study
from minirelu.death.twins import overlap
from minirelu.death.verdicts import NOTHING, Result
from minirelu.errors import UserError
from minirelu.model.parameters import init_params
from minirelu.training import state
from minirelu.training.interventions import INTERVENTIONS
from minirelu.training.update import Intervention

# Layer 1 is where causes are planted. The rate is so low that nobody dies of anything else.
UNITS, STEPS = 320, 64
BIASES, KEYS, LN = "blocks.1.mlp.b_in", "blocks.1.mlp.W_in", "blocks.1.ln2"


def drawn(name: str, *seeds: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), *seeds])


def outlier_step(data_seed: int) -> int:
    """In either half of the window between the states kept at steps 32 and 40."""
    return 33 + 3 * (data_seed % 3)


class Outlier(Intervention):
    """O: one batch has a huge gradient, and takes the biases of half of the units far down."""

    def around(self, update) -> Iterator[None]:
        train = update.settings
        if train.batch_step(update.step) == outlier_step(train.batch_seed):
            update.grads.flat *= 50
            yield
            hit = drawn("O", train.seed, train.batch_seed).random(UNITS) < 0.5
            update.params[BIASES][hit] -= 8


class Drift(Intervention):
    """D: biases go down steadily, each at its own rate."""

    def around(self, update) -> Iterator[None]:
        yield
        update.params[BIASES][...] -= 0.06 * drawn("D", update.settings.seed).random(UNITS)


class Walk(Intervention):
    """R: biases take random steps, others with other batches; all else is frozen."""

    def around(self, update) -> Iterator[None]:
        train, before = update.settings, update.params.flat.copy()
        yield
        update.params.flat[:] = before
        draws = drawn("R", train.seed, train.batch_seed, train.batch_step(update.step))
        update.params[BIASES][...] += draws.normal(0, 0.25, UNITS)


def mean_direction(config: mr.ModelConfig) -> np.ndarray:
    return np.where(np.arange(config.d_model) < 4, 0.5, 0)


class Grow(Intervention):
    """G: the mean of what the MLP reads grows, which is bad for units born against it."""

    def around(self, update) -> Iterator[None]:
        yield
        update.params[f"{LN}.b"][...] += 0.03 * mean_direction(update.params.config)


def born_against_the_mean(config: mr.ModelConfig, seed: int) -> mr.Parameters:
    """Initial weights of G: those of some units point away from the mean of what they read."""
    params, mean = init_params(config, seed), mean_direction(config)
    params[f"{LN}.w"][mean > 0] = 0  # along the mean, there is nothing else
    params[f"{LN}.b"][...] = mean
    params[BIASES][...] = 0.4  # which leaves all of them on for now
    against = drawn("G", seed).random(UNITS) < 0.3
    params[KEYS][against] = 0.3 * params[KEYS][against] - 0.4 * mean
    return params


CAUSES = {"O": Outlier, "D": Drift, "R": Walk, "G": Grow}


@pytest.fixture(scope="module")
def planted(text_file, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """``study(cause)``, trained, and ``result(cause, experiment)``."""

    @functools.cache
    def study(cause: str) -> Study:
        options = {
            "model": dict(n_layers=2, n_heads=2, d_model=16, d_mlp=UNITS, n_ctx=16, d_vocab=300),
            "text": dict(corpus=str(text_file)),
            "train": dict(
                steps=STEPS, batch_size=16, learning_rate=3e-4, warmup_steps=1, data_seed=0,
                probe_tokens=256, history_tokens=1024, history_every=2,
                keep_optimizer_at=tuple(range(8, STEPS, 8)), intervene=(CAUSES[cause].__name__,),
            ),
        }  # fmt: skip
        folder = tmp_path_factory.mktemp("planted") / cause
        made = Study.make(folder, mr.Config.build("tiny", options=options), Plan(seeds=3, swaps=2))
        with pytest.MonkeyPatch.context() as patch:
            if cause == "G":
                patch.setattr(state, "init_params", born_against_the_mean)
            made.train(("base", "twin"))
        return made

    @functools.cache
    def result(cause: str, experiment: str) -> Result:
        return EXPERIMENTS[experiment].run(study(cause))

    with pytest.MonkeyPatch.context() as patch:
        for kind in CAUSES.values():
            patch.setitem(INTERVENTIONS, kind.__name__, kind)
        yield SimpleNamespace(study=study, result=result)


# What each experiment can tell: some causes look the same to it, and then it says so.
NAMED = {
    "approach": {"O": "O", "D": "DG", "R": "R", "G": "DG"},
    "burst": {"O": "O", "R": "RDG"},
    "replay": {"O": "O", "D": "DG", "G": "DG"},
    "twins": {"O": "RO", "D": "D", "R": "RO", "G": "G"},
    "predict": {"O": "O", "D": "D", "R": "R", "G": "G"},
    "revive": {"O": "ODG", "D": "ODG", "R": "RD", "G": "ODG"},
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("experiment", NAMED)
def test_a_planted_cause_is_named_and_no_other(planted, cause, experiment):
    rows = planted.result(cause, experiment).rows
    said = {row.says for row in rows if row.where == "1"} - {NOTHING}
    assert all(cause in letters for letters in said), said
    assert NAMED[experiment].get(cause, NOTHING) in said | {NOTHING}
    assert all(row.says == NOTHING for row in rows if row.where == "0")


def test_the_outlier_is_suspected_wherever_in_its_window_it_lies(planted):
    windows = [worst_window(run) for run in planted.study("O").runs("base")]
    assert [(w.start, w.stop) for w in windows] == [(32, 40)] * 3
    assert [w.suspect for w in windows] == [outlier_step(seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("cause", "own", "upstream"), [("O", 1, 0), ("D", 1, 0), ("R", 1, 0), ("G", 0, 1)]
)
def test_a_frozen_part_spares_units_where_it_holds_the_cause(planted, cause, own, upstream):
    avoided = {
        row.statistic.removeprefix("deaths avoided, "): row.estimate.value
        for row in planted.result(cause, "replay").rows
        if row.where == "1"
    }
    assert avoided["own weights frozen"] == pytest.approx(own, abs=0.2)
    assert avoided["upstream frozen"] == pytest.approx(upstream, abs=0.2)
    assert avoided["suspect step left out"] == pytest.approx(float(cause == "O"), abs=0.3)


def values(result: Result, statistic: str) -> np.ndarray:
    """Of layer 1 at the last step, by seed."""
    rows = [r for r in result.rows if (r.where, r.statistic) == ("1", statistic)]
    return np.array(rows[-1].values)


def test_runs_from_other_weights_overlap_as_the_hypergeometric_says(planted):
    """The null twin: the same batches, and the same cause, in units that are others."""
    control, z = [], []
    for cause in CAUSES:
        control.append(values(planted.result(cause, "twins"), CONTROL))
        of_arm = [
            [History.of(run).layers[1] for run in planted.study(cause).runs(arm)]
            for arm in ("base", "twin")
        ]
        silent = [[(h.tokens_on + h.confirm_on)[-1] == 0 for h in of] for of in of_arm]
        z += [overlap(silent[1][s], silent[0][(s + 1) % 3]).z for s in range(3)]
    assert np.mean(control) == pytest.approx(1, abs=0.1)
    assert abs(np.mean(z)) < 0.6  # two standard errors of 12
    assert 0.5 < np.std(z) < 1.5
    for cause in "DG":
        assert values(planted.result(cause, "twins"), RATIO).min() > 2


@pytest.mark.parametrize("experiment", ["approach", "burst", "twins", "predict", "revive"])
def test_silence_that_the_other_text_refutes_is_no_death(planted, experiment, monkeypatch):
    read: Callable[..., History] = History.of

    def refuted(*args, **kwargs):
        history = read(*args, **kwargs)
        for layer in history.layers:
            layer.confirm_on[:] = 1
        return history

    study = planted.study("D")
    monkeypatch.setattr(History, "of", refuted)
    if experiment == "twins":
        assert "Nobody was silent" in EXPERIMENTS[experiment].run(study).conclusion
    else:
        with pytest.raises(UserError, match=r"no unit|too few (units|died)"):
            EXPERIMENTS[experiment].run(study)
