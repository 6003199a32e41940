"""Units reborn: everything of them begins anew, and each mistake in that is seen.

Public implementations of ReDo and continual backprop made the mistakes that are planted here.
"""

from __future__ import annotations

import inspect
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helpers import new_run, quick_settings, result, stop_after

import minirelu as mr
from minirelu.errors import UserError
from minirelu.model.activation_functions import act_fn_names
from minirelu.runs.prepare import create_run
from minirelu.training import rebirth
from minirelu.training.interventions import INTERVENTIONS, parse_interventions
from minirelu.training.optimizers import adam_step
from minirelu.training.state import State
from minirelu.training.update import Update

BORN = 4  # the step after which units are reborn
REDO = "redo tau=0.7 every=4 last=4"
NAMES = ("W_in", "b_in", "W_out")


def watched(folder, text_file, name, **train):
    """Train for 8 steps; copies of layer 1 before each of them, and the gradients as clipped."""
    settings = quick_settings(text_file, steps=8, warmup_steps=0, **train)
    run, before, gradients = create_run(settings, folder / name), [], []

    def watch(state, grads, step):
        of = {"p": state.params, **state.slots}
        before.append({k: {n: a[f"blocks.1.mlp.{n}"].copy() for n in NAMES} for k, a in of.items()})
        before[-1]["born"] = state.memory.get("born.1", np.zeros(32)).copy()
        g = {n: grads[f"blocks.1.mlp.{n}"].copy() for n in NAMES}
        yield
        gradients.append(g)

    assert mr.train(run, on_step=watch)
    for g, record in zip(gradients, run.metrics("train"), strict=True):
        for a in g.values():
            a *= min(1.0, settings.train.clip_norm / record["grad_norm"])
    return run, before, gradients


def check_begins_anew(run, before):
    """Of units reborn after step 4: weights, bias, moments; the other units do not notice."""
    old, new = before[BORN - 1], before[BORN]  # before step 4, and before step 5
    units = np.flatnonzero(new["born"] == BORN)
    assert 2 < len(units) < 30
    assert run.metrics("train")[BORN - 1]["units_reborn"][1] == len(units)
    assert not new["p"]["W_out"][units].any() and not new["p"]["b_in"][units].any()
    for slot in ("m", "v"):
        for name in NAMES:
            assert not new[slot][name][units].any(), f"{slot} of {name}"
            others = np.delete(new[slot][name], units, axis=0)
            assert others.reshape(len(others), -1).any(axis=1).all()
    rows = new["p"]["W_in"][units]
    assert abs(np.corrcoef(rows.ravel(), old["p"]["W_in"][units].ravel())[0, 1]) < 0.3
    std = {"gpt2": 0.02, "nanodo": math.sqrt(6 / (32 + 16)) / math.sqrt(3)}[run.config.init]
    assert abs(rows.std() / std - 1) < 0.2 and abs(rows.mean()) < std / 2


def check_steps_are_its_own(run, before, gradients):
    """As if an Adam of its own had begun with the unit, at its first step."""
    units, settings = np.flatnonzero(before[BORN]["born"] == BORN), run.settings.train
    p, m, v = ({n: before[BORN][k][n][units].copy() for n in NAMES} for k in "pmv")
    for own_step, at in enumerate(range(BORN, 7), start=1):
        lr = run.metrics("train")[at]["lr"]
        for n in NAMES:
            decay = settings.weight_decay if p[n].ndim == 2 else 0.0
            adam_step(
                p[n], gradients[at][n][units], m[n], v[n], own_step, lr,
                settings.beta1, settings.beta2, settings.adam_eps, decay,
            )  # fmt: skip
            np.testing.assert_allclose(before[at + 1]["p"][n][units], p[n], rtol=1e-4, atol=1e-6)
    assert np.abs(p["W_out"]).max() > 0.001  # they did move


@pytest.mark.parametrize("compute", ["auto", "reference"])
@pytest.mark.parametrize("text", [REDO, "replace rate=0.3 maturity=3 last=4"])
def test_units_reborn_begin_anew_and_count_their_own_steps(text_file, tmp_path, text, compute):
    run, before, gradients = watched(tmp_path, text_file, "run", intervene=(text,), compute=compute)
    check_begins_anew(run, before)
    check_steps_are_its_own(run, before, gradients)
    _, free, _ = watched(tmp_path, text_file, "free", compute=compute)
    others = before[BORN]["born"] == 0
    for name in NAMES:  # the step at which units are reborn is an ordinary one for all others
        assert np.array_equal(before[BORN]["p"][name][others], free[BORN]["p"][name][others])


def planted(monkeypatch, old: str, new: str) -> ModuleType:
    """Train with a copy of ``rebirth.py`` in which one thing is wrong."""
    source = inspect.getsource(rebirth)
    assert source.count(old) == 1, old
    module = ModuleType("wrong_rebirth")
    monkeypatch.setitem(sys.modules, "wrong_rebirth", module)
    exec(compile(source.replace(old, new), "wrong_rebirth", "exec"), module.__dict__)
    monkeypatch.setitem(INTERVENTIONS, "redo", module.Redo)
    return module


REINITIALISED = "params[name][units] = rows if name == W_in else 0"
SLOTS = "for slot in update.state.slots.values():"
MISTAKES = {
    "incoming row stays": (REINITIALISED, "params[name][units] *= name == W_in"),
    "incoming row too small": ("rows = initial_rows(", "rows = 0.5 * initial_rows("),
    "outgoing row stays": (
        REINITIALISED, "if 'W_out' not in name: params[name][units] = rows if name == W_in else 0"
    ),
    "outgoing row drawn": (REINITIALISED, "params[name][units] = rows if 'W' in name else 0"),
    "bias stays": (
        REINITIALISED, "if 'b_in' not in name: params[name][units] = rows if name == W_in else 0"
    ),
    "first moment stays": (SLOTS, "for slot in [update.state.slots['v']]:"),
    "second moment stays": (SLOTS, "for slot in [update.state.slots['m']]:"),
    "moments of the outgoing row stay": (
        SLOTS, "for slot in [] if 'W_out' in name else update.state.slots.values():"
    ),
    "moments of the bias stay": (
        SLOTS, "for slot in [] if 'b_in' in name else update.state.slots.values():"
    ),
    "the run's step count": ("layer.take_own_step(update)", "pass"),
    "a step count off by one": (
        "age = update.step - born(update, l)", "age = update.step - born(update, l) + 1"
    ),
    "a step count for the incoming row alone": (
        "in self.before.items():", "in list(self.before.items())[:1]:"
    ),
    "birth not written down": ("born(update, l)[units] = update.step", "pass"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_rebirth_is_seen(text_file, tmp_path, monkeypatch, mistake):
    planted(monkeypatch, *MISTAKES[mistake])
    run, before, gradients = watched(tmp_path, text_file, "run", intervene=(REDO,))
    with pytest.raises(AssertionError):
        check_begins_anew(run, before)
        check_steps_are_its_own(run, before, gradients)


@pytest.mark.parametrize("init", ["gpt2", "nanodo"])
def test_the_incoming_row_is_of_the_model_s_own_initialiser(text_file, tmp_path, init):
    tables = quick_settings(text_file, steps=5, intervene=(REDO,), keep_optimizer_at=[4]).tables()
    tables["model"]["init"] = init
    run = create_run(mr.Config.from_tables(tables), tmp_path / "run")
    assert mr.train(run)
    reborn = np.flatnonzero(~run.params(4)["blocks.1.mlp.W_out"].any(axis=1))
    first, now = (run.params(step)["blocks.1.mlp.W_in"] for step in (0, 4))
    assert len(reborn) > 2 and abs(now[reborn].std() / first.std() - 1) < 0.2


def one_update(config, memory, step, mean_post, seed=0):
    """An update of which only what `redo` and `replace` choose by is there."""
    params = mr.Parameters(config)
    params["blocks.0.mlp.W_out"][:] = 1 / config.d_model
    return Update(
        State(step - 1, params, {}, memory), mr.Parameters(config), step, 0.1,
        mr.TrainConfig(seed=seed), lambda: [SimpleNamespace(mean_post=np.array(mean_post))],
    )  # fmt: skip


FOUR = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)


def check_young_units_are_judged_fairly(replace):
    """Unit 0, 4 steps old, does ten times as much as unit 1, which is old."""
    memory = {
        "replace.utility.0": np.array([0.0, 0.1, 1.0, 1.0]),
        "replace.age.0": np.array([0, 1000, 1000, 1000]),
    }
    for step in range(1001, 1004):
        update = one_update(FOUR, memory, step, [1.0, 0.1, 1.0, 1.0])
        chosen = replace(rate=0, maturity=2).chosen(update)
        assert [len(units) for units in chosen] == [0]
    update = one_update(FOUR, memory, 1004, [1.0, 0.1, 1.0, 1.0])
    (units,) = replace(rate=0.25, maturity=2).chosen(update)
    assert units.tolist() == [1]
    np.testing.assert_allclose(memory["replace.utility.0"][0], 1 - 0.99**4)
    assert memory["replace.age.0"].tolist() == [4, 0, 1004, 1004]
    assert memory["replace.utility.0"][1] == 0


def test_utility_is_corrected_for_its_start():
    check_young_units_are_judged_fairly(rebirth.Replace)


@pytest.mark.parametrize(
    "old, new",
    [
        ("utility[mature] / (1 - self.keep ** age[mature])", "utility[mature]"),
        ("utility[mature] / (1 - self.keep ** age[mature])",
         "utility[mature] / (1 - self.keep ** update.step)"),
        ("utility[lowest], age[lowest] = 0, 0", "age[lowest] = 0"),
        ("utility[lowest], age[lowest] = 0, 0", "utility[lowest] = 0"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_utility_is_seen(monkeypatch, old, new):
    with pytest.raises(AssertionError):
        check_young_units_are_judged_fairly(planted(monkeypatch, old, new).Replace)


def test_only_mature_units_are_replaced_and_at_the_rate_asked_for():
    memory, last, counted = {}, np.zeros(4), []
    for step in range(1, 41):
        update = one_update(FOUR, memory, step, [0.1, 0.2, 0.3, 0.0])
        (units,) = rebirth.Replace(rate=0.05, maturity=5).chosen(update)
        assert (step - last[units] > 5).all()
        last[units] = step
        counted.append(len(units))
    assert not any(counted[:5])
    # of 4 mature units 0.2 each step from the 6th, less while some are young: 35 * 0.2 at most
    assert 5 <= sum(counted) <= 7 and max(counted) == 1


def test_dormant_is_a_share_of_the_layer_s_mean():
    def chosen(mean_post, step=10):
        redo = rebirth.Redo(tau=0.1, every=5)
        return [units.tolist() for units in redo.chosen(one_update(FOUR, {}, step, mean_post))]

    assert chosen([0.09, 0.11, 1.8, 2.0]) == [[0]]
    assert chosen([9, 11, 180, 200]) == [[0]]
    assert chosen([0, 0, 0, 0]) == [[0, 1, 2, 3]]  # a layer that is silent
    assert chosen([0.09, 0.11, 1.8, 2.0], step=11) == []


def test_draws_depend_on_seed_step_and_layer_alone():
    def draw(step, layer, seed=0):
        return one_update(FOUR, {}, step, [], seed).rng("rebirth", layer).random()

    numbers = {draw(1, 0), draw(2, 0), draw(1, 1), draw(1, 0, seed=1), draw(2**31, 0, 2**63 - 1)}
    assert len(numbers) == 5 and draw(1, 1) in numbers


@pytest.mark.parametrize("text", ["redo tau=0.7 every=3", "replace rate=0.1 maturity=2"])
@pytest.mark.parametrize("compute", ["auto", "reference"])
def test_an_interrupted_run_and_a_branch_end_with_the_same_bits(text_file, tmp_path, text, compute):
    given = dict(intervene=(text,), compute=compute, keep_optimizer_at=(5,))
    whole = new_run(tmp_path, text_file, "whole", **given)
    assert mr.train(whole)
    assert sum(sum(r.get("units_reborn", [0])) for r in whole.metrics("train")[:5]) > 2
    parts = new_run(tmp_path, text_file, "parts", **given)
    while not mr.train(parts, should_stop=stop_after(5)):
        parts = mr.Run.open(parts.folder)
    assert result(parts) == result(whole)
    child = mr.branch(whole, 5, whole.settings, tmp_path / "child")
    assert mr.train(child)
    assert result(child) == result(whole)
    plain = mr.Config.from_tables(
        {**whole.settings.tables(), "train": {**whole.settings.tables()["train"], "intervene": []}}
    )
    assert mr.train(mr.branch(whole, 5, plain, tmp_path / "plain"))  # what is left is no harm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act_fn", act_fn_names())
def test_kernels_and_reference_make_the_same_steps(text_file, tmp_path, act_fn, bias):
    ended = []
    for compute in ("auto", "reference"):
        given = dict(intervene=("redo tau=0.9 every=2",), compute=compute, micro_batches=2)
        given |= dict(optimizer="sgd_momentum", learning_rate=0.2)
        tables = quick_settings(text_file, steps=4, **given).tables()
        tables["model"] |= {"act_fn": act_fn, "act_k": 5, "bias": bias}
        run = create_run(mr.Config.from_tables(tables), tmp_path / compute)
        assert mr.train(run)
        assert sum(run.metrics("train")[3]["units_reborn"]) > 0
        ended.append(run.params().flat)
    np.testing.assert_allclose(*ended, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    [("redo", "replace"), ("redo", "redo tau=1"), ("unit_clip", "redo"), ("centre", "centre")],
)
def test_what_would_spoil_each_other_is_refused(texts):
    with pytest.raises(UserError, match="cannot be combined with"):
        parse_interventions(texts)
