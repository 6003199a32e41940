# %% [markdown]
# # 3. Adam and the training loop
#
# **What you will be able to do.** Write an optimizer and a training loop from nothing, say what
# each of their parts is for, and judge whether a model has learned anything.
#
# **Time.** About 35 minutes of reading, 20 seconds of computing; more the first time, when kernels
# are compiled.
#
# **You need** the gradient of a loss (tutorial 2).
#
# Tutorial 2 ended with a gradient: for every parameter `p`, the number `g` that says how much the
# loss rises when `p` rises a little. Training uses it a few hundred times: take a batch, compute
# `g`, move every `p` a little against it. This tutorial is about the words *move a little*.

# %%
import math
import tempfile
from pathlib import Path

import numpy as np
from checks_03 import check_adam_l2, check_linear_lr, check_steps_to_90_percent
from common import show
from matplotlib.figure import Figure

import minirelu as mr
from minirelu.text.batches import batch
from minirelu.training import optimizers, schedule
from minirelu.training.optimizers import global_norm

# %% [markdown]
# ## 1. Why not simply follow the gradient?
#
# The plain rule is `p -= lr * g`. Its weakness shows in a valley with one steep and one shallow
# side. Take two parameters and the loss `0.5 * (p[0]**2 + 100 * p[1]**2)`, so that
# `g = (p[0], 100 * p[1])`.
#
# Each step multiplies `p[1]` by `1 - 100 * lr`. Above `lr = 0.02` that factor is below -1, and
# `p[1]` grows without end. So the steep side dictates `lr`. The shallow side has to live with it:
# at `lr = 0.019`, after 100 steps, `p[0]` still has 15 % of its way to go.

# %%
STEEPNESS = np.array([1.0, 100.0])


def descend(lr: float, steps: int) -> np.ndarray:
    """The path of plain gradient descent from (1, 1)."""
    p = np.ones(2)
    path = [p.copy()]
    for _ in range(steps):
        p -= lr * STEEPNESS * p
        path.append(p.copy())
    return np.array(path)


plain = descend(0.019, 100)
print("lr 0.019, after 100 steps:", plain[-1])
print("lr 0.021, after 100 steps:", descend(0.021, 100)[-1])
assert round(plain[-1, 0], 2) == 0.15
assert abs(descend(0.021, 100)[-1, 1]) > 1000  # it has left

# %% [markdown]
# A Transformer is such a valley with many sides. The embedding of a rare token gets small
# gradients, a layer norm's gain gets large ones. **Adam** (Kingma & Ba 2015) gives every parameter
# a step of its own. It keeps two running means for each:
#
# * `m`, of the gradient: where has it pointed lately?
# * `v`, of its square: how large is it usually?
#
# and moves by `lr * m / sqrt(v)`. Where all gradients of a parameter are 100 times as large, `m`
# and `sqrt(v)` both are, and the step is the same. Here is the idea, with one flaw left in:

# %%


def flawed_adam_step(p, g, m, v, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step, in place; all arrays have one shape."""
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    p -= lr * m / (np.sqrt(v) + eps)  # eps: where v is 0, do not divide by it


# %% [markdown]
# ## 2. Bias correction
#
# The flaw: `m` and `v` start at 0, which is not the mean of anything. Let the gradient be 1, every
# time. After one step `m = 1 - beta1 = 0.1`, a tenth of what it should be, and
# `v = 1 - beta2 = 0.001`. So the first step has length `0.1 / sqrt(0.001) = 3.16`, in units of
# `lr`: more than three times too long, at the very moment when the model is at its most fragile.
#
# How wrong is a running mean that started at 0? After `step` steps of a gradient 1, it is exactly
# `1 - beta**step`. So divide by that. (For a gradient that changes, this is right on average.)

# %%


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps):
    """One step, in place; ``step`` is 1 for the first."""
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    m_unbiased = m / (1 - beta1**step)
    v_unbiased = v / (1 - beta2**step)
    p -= lr * m_unbiased / (np.sqrt(v_unbiased) + eps)


def step_lengths(beta2: float, correct: bool, steps: int = 60) -> np.ndarray:
    """Lengths of the first steps, in units of lr, while the gradient is always 1."""
    p, m, v, lengths = np.zeros(1), np.zeros(1), np.zeros(1), []
    for step in range(1, steps + 1):
        before = p.copy()
        if correct:
            adam_step(p, np.ones(1), m, v, step, 1.0, 0.9, beta2, 1e-8)
        else:
            flawed_adam_step(p, np.ones(1), m, v, 1.0, 0.9, beta2)
        lengths.append(abs(p - before)[0])
    return np.array(lengths)


assert round(step_lengths(0.999, correct=False)[0], 2) == 3.16
np.testing.assert_allclose(step_lengths(0.999, correct=True), 1)
np.testing.assert_allclose(step_lengths(0.95, correct=True), 1)

# %%
figure = Figure(figsize=(7.2, 3.6), layout="constrained")
axes = figure.add_subplot(title="Length of a step while the gradient is always 1")
for beta2, color in ((0.999, "#D55E00"), (0.95, "#0072B2")):
    lengths = step_lengths(beta2, correct=False)
    axes.plot(range(1, 61), lengths, color=color, label=f"beta2 {beta2}, not corrected")
axes.plot(range(1, 61), step_lengths(0.95, True), color="#333333", label="corrected, any beta2")
axes.set(xlabel="step", ylabel="length, in units of lr", ylim=(0, None), xlim=(1, 60))
axes.legend(frameon=False)
show(figure)

# %% [markdown]
# Without correction the customary `beta2 = 0.999` makes a whole series of steps several times too
# long; minirelu's `beta2 = 0.95` makes the first ones too short. With it, the first step has length
# `lr` in every direction, whatever the gradient.
#
# `minirelu/training/optimizers.py` has the same six lines, and one more term that comes next. With
# `decay=0` the two agree to the last digits, here over ten random gradients:

# %%
rng = np.random.default_rng(0)
p, m, v = np.ones(5), np.zeros(5), np.zeros(5)
p_library, m_library, v_library = p.copy(), m.copy(), v.copy()
for step in range(1, 11):
    g = rng.standard_normal(5) * [100, 10, 1, 0.1, 0.01]
    adam_step(p, g, m, v, step, 0.01, 0.9, 0.95, 1e-8)
    optimizers.adam_step(
        p_library, g, m_library, v_library,
        step=step, lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.0,
    )  # fmt: skip
np.testing.assert_allclose(p, p_library, rtol=1e-12)
print("moved by", p - 1, "though gradients differ by factors of ten")
assert (abs(p - 1) < 0.1).all()  # ten steps of about lr each, at most

# %% [markdown]
# And the valley? With `lr = 0.1`, far more than plain descent can bear, both parameters arrive: the
# loss falls below what plain descent reaches.

# %%
p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
path = [p.copy()]
for step in range(1, 101):
    adam_step(p, STEEPNESS * p, m, v, step, 0.1, 0.9, 0.95, 1e-8)
    path.append(p.copy())
with_adam = np.array(path)
loss_plain, loss_adam = (0.5 * (STEEPNESS * end[-1] ** 2).sum() for end in (plain, with_adam))
print(f"loss after 100 steps: plain {loss_plain:.6f}, Adam {loss_adam:.6f}")
assert loss_adam < loss_plain
np.testing.assert_allclose(with_adam[:, 0], with_adam[:, 1], atol=1e-6)  # steepness is gone

# %%
figure = Figure(figsize=(7.2, 3.6), layout="constrained")
axes = figure.add_subplot(title="One valley, two ways down")
x, y = np.meshgrid(np.linspace(-0.4, 1.1, 100), np.linspace(-1.1, 1.1, 100))
axes.contour(x, y, 0.5 * (x**2 + 100 * y**2), levels=12, colors="#cccccc", linewidths=0.8)
axes.plot(*plain.T, color="#D55E00", marker="o", markersize=3, label="plain, lr 0.019")
axes.plot(*with_adam.T, color="#0072B2", marker="o", markersize=3, label="Adam, lr 0.1")
axes.set(xlabel="p[0], shallow", ylabel="p[1], steep")
axes.legend(frameon=False, loc="lower right")
show(figure)

# %% [markdown]
# Adam's path is a straight line: it does not see that one side is a hundred times as steep. (It
# also shoots past the goal and comes back. That is `m`, which remembers.)
#
# ## 3. Decoupled decay
#
# Weight decay pulls every weight towards 0, so that what the data does not ask for fades. The
# classical way adds `decay * p` to the gradient. Under Adam that goes wrong: `decay * p` is then
# divided by `sqrt(v)` with the rest, so how fast a weight decays depends on how large its gradients
# are.
#
# *Decoupled* decay (Loshchilov & Hutter 2019, "AdamW") leaves the gradient alone and takes
# `lr * decay * p` from `p` directly. Two weights, both at 1, show the difference. Their gradients
# only go back and forth, +1, -1 for the first and +0.1, -0.1 for the second, so what is left after
# 2000 steps is the work of the decay.

# %%


def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, decay):
    """One step with decoupled decay, in place."""
    p -= lr * decay * p
    adam_step(p, g, m, v, step, lr, beta1, beta2, eps)


def after_2000(decoupled: bool) -> np.ndarray:
    """Both weights after 2000 steps with lr 0.001 and decay 0.1."""
    p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    for step in range(1, 2001):
        g = np.array([1.0, 0.1]) * (-1) ** step
        if decoupled:
            adamw_step(p, g, m, v, step, 0.001, 0.9, 0.95, 1e-8, decay=0.1)
        else:
            adam_step(p, g + 0.1 * p, m, v, step, 0.001, 0.9, 0.95, 1e-8)
    return p


print("decoupled      ", after_2000(True).round(3))
print("in the gradient", after_2000(False).round(3))
np.testing.assert_allclose(after_2000(True), (1 - 0.001 * 0.1) ** 2000, atol=0.002)
assert after_2000(False)[0] > 0.8 and after_2000(False)[1] < 0.3

# %% [markdown]
# Decoupled, both weights end at 0.82, which is `(1 - lr * decay)**2000`. In the gradient, the same
# `decay` leaves more than 0.8 of one and less than 0.3 of the other.
#
# In minirelu only matrices decay. A gain that fades to 0 would silence a layer, and a bias does not
# overfit. That is why parameters lie in one flat vector with all matrices first:
# `params.flat[:params.n_matrix]` is what decays.
#
# ## 4. Clipping
#
# Now and then a batch has a gradient many times longer than usual. Adam limits what it does to one
# step, but not for how long: the outlier stays in `v`, and until `v` has forgotten it, every step
# is too short. Clipping shortens the gradient before Adam sees it. The *whole* gradient, over all
# parameters, gets one factor, so its direction stays.

# %%


def clip(g: np.ndarray, clip_norm: float) -> np.ndarray:
    """Shorten g to the length clip_norm; leave it as it is if it is shorter."""
    norm = np.sqrt((g * g).sum())
    return g * (clip_norm / norm) if norm > clip_norm else g


def lengths_around_a_spike(clip_norm: float, steps: int = 160) -> list[float]:
    """Step lengths, in units of lr, where the gradient is 1, and once, at step 30, 100."""
    p, m, v, lengths = np.zeros(1), np.zeros(1), np.zeros(1), []
    for step in range(1, steps + 1):
        before = p.copy()
        g = np.array([100.0 if step == 30 else 1.0])
        adam_step(p, clip(g, clip_norm), m, v, step, 1.0, 0.9, 0.95, 1e-8)
        lengths.append(abs(p - before)[0])
    return lengths


unclipped, clipped = lengths_around_a_spike(math.inf), lengths_around_a_spike(1.0)
np.testing.assert_allclose(clipped, 1)
print(f"not clipped, at the spike: {unclipped[29]:.2f}, and 60 steps later: {unclipped[89]:.2f}")
assert unclipped[29] < 0.5 and unclipped[89] < 1 / 3

g = rng.standard_normal(1000).astype(np.float32)
assert math.isclose(global_norm(g), np.sqrt((g.astype(float) ** 2).sum()))  # the library's norm

# %%
figure = Figure(figsize=(7.2, 3.2), layout="constrained")
axes = figure.add_subplot(title="One gradient of 100 among gradients of 1")
axes.plot(range(1, 161), unclipped, color="#D55E00", label="not clipped")
axes.plot(range(1, 161), clipped, color="#0072B2", label="clipped to 1")
axes.set(xlabel="step", ylabel="length, in units of lr", ylim=(0, 1.15), xlim=(1, 160))
axes.legend(frameon=False, loc="lower right")
show(figure)

# %% [markdown]
# The spike is in both means, but more in `sqrt(v)` than in `m`. So the step is below half of its
# length at once, and sixty steps later, when `m` has long forgotten and `v` has not, still below a
# third.
#
# ## 5. Warm-up, and slowing down
#
# In the first steps `v` has seen only a few gradients, and every parameter moves by nearly the full
# `lr` at once, in whatever direction the first batches happen to point. So `lr` starts small and
# rises in a straight line: the *warm-up*. Later it falls, along half a cosine, to a tenth: large
# steps get far, and small ones settle.

# %%


def learning_rate(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Rise to ``peak`` over ``warmup`` steps, then fall to ``final * peak``."""
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)  # 0 to 1
    cosine = (1 + math.cos(math.pi * done)) / 2  # 1 to 0
    return peak * (final + (1 - final) * cosine)


STEPS = 800
settings = mr.Config.build(
    preset="tiny",
    options={
        "model": {"d_model": 64, "n_heads": 4, "d_mlp": 256},
        "train": {"steps": STEPS, "batch_size": 16, "probe_tokens": 4096},
    },
)
train = settings.train
given = (train.steps, train.learning_rate, train.warmup_steps, train.final_lr)
for step in range(1, STEPS + 1):
    mine = learning_rate(step, *given)
    assert math.isclose(mine, schedule.learning_rate(step, train))
print(f"{train.warmup_steps} steps up to {train.learning_rate}, then down to {mine:.4f}")
assert math.isclose(mine, 0.1 * train.learning_rate)

# %% [markdown]
# ## 6. The loop
#
# All parts are in place. `settings` describe a small model: two layers of 256 hidden units. Its
# text is about 1 MB of the source of Python's own standard library. `mr.create_run` reads it,
# learns a vocabulary of 512 tokens from it, sets some documents aside to test with, and writes it
# all to a folder, a temporary one here.

# %%
temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
run = mr.create_run(settings, Path(temporary.name) / "run")
config = run.config
tokens, probe = np.array(run.train_tokens), run.probe_tokens
print(f"{len(tokens):,} tokens to train on, {probe[:, 1:].size:,} to test with")
print(f"{mr.n_params(config):,} parameters")
print(f"a piece of the text: {run.tokenizer.decode(tokens[1000:1050].tolist())!r}")
assert config.d_vocab == 512 and len(tokens) > 200_000

# %% [markdown]
# A step takes a batch of 16 sequences of 64 tokens from random places of the text. The draw depends
# only on the seed and the step's number, so that any batch can be made again.
#
# `mr.loss_and_grads` is the forward and backward of tutorials 1 and 2, made fast (tutorial 4). The
# rest is ours.

# %%


def test_loss(params: mr.Parameters) -> float:
    """Mean loss over the probe, text that training never sees, in nats per token."""
    logits, _ = mr.forward(params, probe[:, :-1], config, keep=[])
    return mr.cross_entropy(logits, probe[:, 1:])[0]


params = mr.init_params(config, seed=train.seed)
m, v = mr.Parameters(config), mr.Parameters(config)  # zeros, laid out like params
matrices, vectors = slice(None, params.n_matrix), slice(params.n_matrix, None)
workspace = mr.Workspace()
losses, test_losses = [], {0: test_loss(params)}
for step in range(1, STEPS + 1):
    sequences = batch(tokens, step, train.batch_size, config.n_ctx, train.seed)  # (B, T + 1)
    loss, grads = mr.loss_and_grads(
        params, sequences[:, :-1], sequences[:, 1:], config, workspace=workspace
    )
    g = clip(grads.flat, train.clip_norm)
    lr = learning_rate(step, *given)
    for part, decay in ((matrices, train.weight_decay), (vectors, 0.0)):
        p = params.flat[part]  # a view: changing it changes params
        adamw_step(
            p, g[part], m.flat[part], v.flat[part], step,
            lr, train.beta1, train.beta2, train.adam_eps, decay,
        )  # fmt: skip
    losses.append(loss)
    if step % 50 == 0 or step in (5, 10, 20, 30, 40):
        test_losses[step] = test_loss(params)
        print(f"step {step:4}  training {loss:.2f}  test {test_losses[step]:.2f}")

# %% [markdown]
# Twenty lines, and they are what `mr.train` does. Let it make the first 16 steps of the same run:
# its losses are ours, to the rounding of 32-bit numbers.

# %%
theirs: list[float] = []


def note(record: dict) -> None:
    """Collect the losses of training steps."""
    if record["kind"] == "train":
        theirs.append(record["loss"])


mr.train(run, note, should_stop=lambda: len(theirs) >= 16)
np.testing.assert_allclose(losses[:16], theirs, rtol=1e-4)
print("largest difference:", np.abs(np.subtract(losses[:16], theirs)).max())

# %% [markdown]
# ## 7. Has it learned anything?
#
# A loss alone says little; it needs baselines, models so simple that you can write them down:
#
# * **uniform**: all 512 tokens are equally likely. The loss is ln 512 = 6.24 nats.
# * **unigram**: tokens are as likely as they are frequent in the training text.
# * **bigram**: a table of which token follows which, counted in the training text.
#
# A model below the unigram has learned more than frequencies. One below the bigram must be looking
# further back than one token; that needs attention, or something like it.

# %%
baselines = run.corpus["baselines"]
for name, nats in baselines.items():
    passed = [step for step, loss in test_losses.items() if loss < nats]
    print(f"{name:8} {nats:.2f} nats, passed by step {min(passed)}")
assert round(baselines["uniform"], 2) == 6.24
assert 0 < test_losses[0] - baselines["uniform"] < 1  # untrained: a bit worse than uniform
assert abs(test_losses[40] - baselines["unigram"]) < 0.3  # the pause
assert test_losses[100] < baselines["unigram"]
assert np.mean(losses[80:120]) < test_losses[100] and 100 * 16 * 64 < len(tokens) / 2
assert test_losses[STEPS] < baselines["bigram"] < test_losses[200]

# %%
figure = Figure(figsize=(7.2, 4.2), layout="constrained")
axes = figure.add_subplot(title="The loss and its baselines")
axes.plot(range(1, STEPS + 1), losses, color="#b3b3b3", linewidth=1, label="training batches")
axes.plot(*zip(*test_losses.items(), strict=True), color="#0072B2", marker="o", label="test")
for (name, nats), style in zip(baselines.items(), (":", "-.", "--"), strict=True):
    axes.axhline(nats, color="#333333", linestyle=style, linewidth=1.2, label=name)
axes.set(xlabel="step", ylabel="nats per token", xlim=(0, STEPS))
figure.legend(loc="outside right center", frameon=False)
show(figure)

# %% [markdown]
# The unigram is passed within the first hundred steps; the bigram takes hundreds more. Look at the
# pause at the unigram, around step 40: frequencies are learned first, since they need no input at
# all; what comes after has to be built through the whole model.
#
# The test loss lies above the training loss from early on. At step 100 the model has not read half
# of the text yet, so it cannot know it by heart: the test files are other files, on other subjects,
# with names of their own. Later, text comes round a second time, and the gap has two reasons.
#
# Two cautions. The bigram table is counted from the same 1 MB; with more text it gets better, and
# harder to beat. And the test text is other files of the same library: it does not tell how the
# model does on other people's programs.
#
# ## 8. Let it write
#
# `mr.generate` asks for the next token, draws one, appends it, and asks again. A low temperature
# keeps to what is likely.

# %%
for temperature in (0.2, 0.8):
    prompt = run.tokenizer.encode("    def ")
    written = list(mr.generate(params, prompt, config, 80, temperature=temperature, seed=1))
    print(f"--- temperature {temperature}")
    print("    def " + run.tokenizer.decode(written))
    assert len(written) == 80 and max(written) < config.d_vocab

# %% [markdown]
# It has found the look of Python: indentation, words, brackets. What it writes means nothing: that
# would need a larger model and much more text.
#
# One more look, since it is what this project is about. A ReLU that has not learned anything is on
# half of the time. What share of the hidden units is on at a token now?

# %%
names = ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"]
_, acts = mr.forward(params, probe[:, :-1], config, keep=names)
for l, name in enumerate(names):
    print(f"layer {l}: {(acts[name] > 0).mean():.0%} on")
assert (acts[names[0]] > 0).mean() < 0.4 and (acts[names[1]] > 0).mean() < 0.2

# %% [markdown]
# Fewer than 40 % in the first layer, and fewer than 20 % in the second. The rest is exactly 0.
# Tutorial 4 makes use of that, and tutorial 5 looks at it closely.
#
# ## Exercises
#
# Each has a check that answers with a sentence. Worked solutions:
# `solutions/03_adam_and_the_training_loop.py`.
#
# **Exercise 1.** A running mean starts at 0, and is not corrected; the gradient is always 1. After
# how many steps does it reach 0.9 or more, for `beta` = 0.9, 0.95 and 0.999? (From
# `1 - beta**step >= 0.9`.) This is about how long a `v` remembers.

# %%
steps_to_90_percent = None  # a list of three whole numbers
_ = check_steps_to_90_percent(steps_to_90_percent)

# %% [markdown]
# **Exercise 2.** Some prefer a straight line to the cosine. Write `linear_lr` with the warm-up as
# above, then straight down from `peak` at step `warmup` to `final * peak` at the last step.

# %%


def linear_lr(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Rise to ``peak`` over ``warmup`` steps, then fall in a straight line."""
    ...


_ = check_linear_lr(linear_lr)

# %% [markdown]
# **Exercise 3.** Write Adam with the decay *in the gradient*, not decoupled: return the new `p`,
# `m` and `v`. Then use it in `after_2000` and find the numbers of section 3 again.

# %%


def adam_l2(p, g, m, v, step, lr, beta1, beta2, eps, decay):
    """One step with the decay in the gradient; returns the new p, m, v."""
    ...


_ = check_adam_l2(adam_l2)

# %% [markdown]
# ## What to try next
#
# * Change one part at a time: `warmup_steps=0`, `clip_norm=0`, `learning_rate=0.05`. Which of them
#   does this model miss? (`beta2=0.999` together with no warm-up is worth a look.)
# * `minirelu train --preset tiny` is this loop with checkpoints, probes and a report;
#   `minirelu train` the model of a few minutes.
# * `minirelu/training/trainer.py` reads like section 6.
# * Tutorial 4: where the time of a step goes, and how exact zeros save most of it.

# %%
temporary.cleanup()
