"""What stops a training: numbers that are not finite, a full disk."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import new_run, stop_after

import minirelu as mr
from minirelu.kernels.workspace import Workspace
from minirelu.runs import checkpoint as checkpoint_module
from minirelu.training import trainer


def test_nan_names_step_and_tensor(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(8))
    state = trainer.load(run)
    state.params["blocks.1.mlp.b_in"][3] = np.nan
    with pytest.raises(ValueError, match="step 9: the loss is nan, first in blocks.1.mlp.b_in"):
        trainer.train_step(run, state, Workspace())


@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_overflow_names_the_activation(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    state = trainer.load(run)
    state.params["blocks.0.mlp.W_in"][:] = 1e38
    state.params["blocks.0.ln2.b"][:] = 10.0
    with pytest.raises(ValueError, match="step 1: .* first in blocks.0.mlp.hook_pre"):
        trainer.train_step(run, state, Workspace())


def test_divergence_keeps_the_last_good_weights(tmp_path, text_file):
    run = new_run(tmp_path, text_file, learning_rate=10.0, clip_norm=0.0, weight_decay=10.0,
                  warmup_steps=0, steps=500)  # fmt: skip
    with pytest.raises(ValueError, match=r"training stopped, the weights of step \d+ are kept"):
        mr.train(run)
    assert np.isfinite(run.params().flat).all()


def test_full_disk_while_saving_keeps_the_last_checkpoint(tmp_path, text_file, monkeypatch):
    from safetensors import SafetensorError

    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(5))

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", full)
        with pytest.raises(ValueError) as e:
            mr.train(run)
    assert "the disk is full" in str(e.value) and "step 5 is intact" in str(e.value)
    assert run.steps[-1] == 5
    assert mr.train(run)


@pytest.mark.filterwarnings("ignore:.*encountered in")
@pytest.mark.parametrize("step", [0, 4])
def test_a_nan_loss_at_a_probe_is_named(tmp_path, text_file, step):
    run = new_run(tmp_path, text_file)
    state = trainer.load(run)
    state.step = step
    state.params["ln_final.w"][2] = np.inf
    with pytest.raises(ValueError, match=f"after step {step}: the loss is nan, first in ln_f"):
        trainer.probe(run, state, Workspace())
