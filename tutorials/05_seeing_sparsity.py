# %% [markdown]
# # 5. Seeing sparsity
#
# **What you will be able to do.** Open the activations of a model, compute the paper's measures of
# sparsity from them in a few lines each, draw its figures 1, 2 and 5 from a run of your own, and
# say what they mean and what they do not.
#
# **Time.** About 35 minutes of reading, 15 seconds of computing; more the first time, when kernels
# are compiled.
#
# **You need** the MLP and its hidden units (tutorial 1), and an idea of a training run (tutorial
# 3).
#
# The paper is Wild & Anderson 2024, *Uncovering Layer-Dependent Activation Sparsity Patterns in
# ReLU Transformers* (arXiv 2407.07848). It watches the hidden units of a ReLU Transformer while it
# trains: how many of them fire, at a token, in a sequence, in a batch, layer by layer. Its model
# has six layers of 32768 units. Ours has four of 512, and trains in seconds.

# %%
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from checks_05 import check_fires_on, check_per_batch, check_unused
from common import show
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import minirelu as mr

# %% [markdown]
# ## 1. A run
#
# `mr.create_run` reads 1 MB of the source of Python's standard library and makes a folder, here a
# temporary one. `mr.train` trains, and stops now and then to *probe* the model: it reads the same
# 8192 held-out tokens (text that training never sees), and counts which units were on.
#
# Probes come at steps 0, 1, 2, 4, 8 and so on. Most of what we want to see happens early.

# %%
temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
settings = mr.Config.build(
    preset="tiny",
    options={
        "model": {"n_layers": 4, "n_heads": 4, "d_model": 64, "d_mlp": 512},
        "train": {"steps": 400, "batch_size": 8},
    },
)
run = mr.create_run(settings, Path(temporary.name) / "run")
mr.train(run)

config = run.config
L, F = config.n_layers, config.d_mlp
tokens = run.probe_tokens[:, :-1]  # (B, T)
B, T = tokens.shape
probes = run.probes()
print(f"{B} sequences of {T} tokens; {L} layers of {F} units; probes at steps")
print([probe["step"] for probe in probes])
first_loss, last_loss = probes[0]["val_loss"], probes[-1]["val_loss"]
unigram = run.corpus["baselines"]["unigram"]
print(f"loss {first_loss:.2f} -> {last_loss:.2f}, unigram {unigram:.2f}")
assert (B, T, L, F) == (128, 64, 4, 512) and B * T == 8192
assert last_loss < unigram < first_loss

# %% [markdown]
# ## 2. Who is on?
#
# `mr.forward` returns the logits, and every activation that we name in `keep`.
# `blocks.{l}.mlp.hook_post` is what the hidden units of layer l give after the ReLU: one number for
# each sequence, position and unit, and exactly 0 where the unit is off. So `> 0` is all we need.

# %%
names = [f"blocks.{l}.mlp.hook_post" for l in range(L)]
logits, acts = mr.forward(run.params(), tokens, config, keep=names)
on = [acts[name] > 0 for name in names]  # L arrays, (B, T, F)
print("one token of layer 3, its first 100 units:")
print("".join(".#"[int(unit)] for unit in on[3][0, 20, :100]))
print("the next token:")
print("".join(".#"[int(unit)] for unit in on[3][0, 21, :100]))

# %% [markdown]
# Here is one sequence: its text, and a picture with a row for each position, a column for each of
# the first 150 units, dark where the unit is on. Look for three things.
#
# * **Columns.** One that is dark all the way down would be a unit that fires whatever the token.
#   There are few or none by now. Empty columns are silent in this sequence: the last layer has
#   many.
# * **Scattered dots** are units that respond to single tokens.
# * **Bands.** Where rows next to each other look alike, the tokens are alike, too. Which they are
#   depends on the text, and so on your Python's version. In the notebook as we ship it there is a
#   band in layer 0, about rows 25 to 50: lines of capitals and signs, `NO=FALSE=OFF=0` and the
#   next.

# %%
print(run.tokenizer.decode([int(token) for token in tokens[0]]))
figure = Figure(figsize=(9.6, 4.4), layout="constrained")
for i, l in enumerate((0, L - 1)):
    axes = figure.add_subplot(2, 1, i + 1, title=f"layer {l}, sequence 0")
    axes.imshow(on[l][0, :, :150], cmap="Greys", aspect="auto", interpolation="nearest")
    axes.set(ylabel="position")
    axes.grid(visible=False)
axes.set_xlabel("hidden unit")
show(figure)

often = [o[0].mean(axis=0) for o in on]  # (F,) for each layer: share of the positions of sequence 0
for l in (0, L - 1):
    always, never = (often[l] == 1).sum(), (often[l] == 0).sum()
    print(f"layer {l}: {always} of {F} units on at every position, {never} at none")
    assert always < 0.1 * F
assert (often[L - 1] == 0).mean() > 0.15 > (often[0] == 0).mean()

# %% [markdown]
# ## 3. Three scales
#
# How sparse is a layer? It depends on how long one looks.
#
# * **per token**: the share of units on at one token, on average. This is what saves arithmetic.
# * **per sequence**: the share on at one position of a sequence or more. This is what a text needs.
# * **per batch**: the share on at one token or more of a batch of 8192 tokens. (This is not the
#   batch of a training step, which here has 8 sequences.) A unit missing here may not be needed
#   at all.
#
# A unit that is on at a token is on in its sequence, and in its batch. So from one scale to the
# next the number can only rise. Each is one line. (Our probe is one batch of 8192 tokens.)

# %%
per_token = np.array([o.mean() for o in on])  # (L,)
per_sequence = np.array([o.any(axis=1).mean() for o in on])
per_batch = np.array([o.any(axis=(0, 1)).mean() for o in on])

print("layer     per token  per sequence  per batch")
for l in range(L):
    print(f"{l:5} {per_token[l]:13.1%} {per_sequence[l]:13.1%} {per_batch[l]:10.1%}")
assert (per_token <= per_sequence).all() and (per_sequence <= per_batch).all()

# %% [markdown]
# The library keeps no activations: it counts, in whole numbers that can be added up over any amount
# of text (`UnitCounts`). Its measures are functions of those counts. Do they agree with ours?

# %%
counts = mr.UnitCounts(config)
counts.update(acts)
used = mr.usage(counts)
np.testing.assert_allclose(used.per_token, per_token, rtol=1e-12)
np.testing.assert_allclose(used.per_sequence, per_sequence, rtol=1e-12)
np.testing.assert_allclose(used.per_batch, per_batch, rtol=1e-12)

# What the run recorded while it trained was counted by the fast kernels. There, a unit that is
# within rounding of 0 may fall on the other side.
for name in ("per_token", "per_sequence", "per_batch"):
    np.testing.assert_allclose(probes[-1][name], getattr(used, name), atol=0.01)
print("equal to the library's, and to the run's own record")

# %% [markdown]
# ## 4. How steadily?
#
# Two layers may have the same use per token and yet be very different: one has a few units that are
# always on, the other many that each take their turn. The paper's figure 2b tells them apart. In
# each sequence, unit j is on at a share `f[j]` of the positions. Take the units that the sequence
# uses at all, and of their shares the median: the 50th percentile. Then the mean over sequences.
#
# A high value means that units fire steadily through a text, a low one that they respond to single
# tokens.

# %%


def in_sequence_percentile(o: np.ndarray, p: float) -> float:
    """Of one layer, ``o`` (B, T, F): percentile over the units used, mean over sequences."""
    f = o.mean(axis=1)  # (B, F): share of the positions
    return np.mean([np.percentile(row[row > 0], p) for row in f])


median = np.array([in_sequence_percentile(o, 50) for o in on])
print("median used unit is on at", [f"{m:.1%}" for m in median], "of the positions")
np.testing.assert_allclose(mr.in_sequence_percentile(counts, 50, over="used"), median, rtol=1e-9)
for p in (10, 90):
    mine = [in_sequence_percentile(o, p) for o in on]
    np.testing.assert_allclose(mr.in_sequence_percentile(counts, p), mine, rtol=1e-9)

# %% [markdown]
# "That the sequence uses" is our reading of the caption of the paper's figure 2b; the median over
# *all* units would be another number, 0 as soon as most units are silent. Definitions like these
# decide what a figure shows, so the library names both (`over="used"`, `over="all"`), and
# `measures.md` lists every one.
#
# ## 5. The figures
#
# Now over training. Each probe's record has our four numbers for every layer. One small function
# draws any of them. Layers go from dark (first) to light (last), and steps are on a logarithmic
# axis, as most happens early.

# %%
steps = np.array([probe["step"] for probe in probes])
recorded = {
    name: np.array([probe[name] for probe in probes], dtype=float)  # (probes, L)
    for name in ("per_token", "per_sequence", "per_batch", "median_in_sequence_used")
}


def draw(axes: Axes, name: str, ylabel: str, until: int | None = None, log: bool = True) -> None:
    """One measure over training, a line for each layer."""
    shown = steps <= (until or steps[-1])
    for l in range(L):
        color = mpl.colormaps["viridis"](0.9 * l / (L - 1))
        values = 100 * recorded[name][shown, l]
        axes.plot(steps[shown], values, color=color, marker="o", label=f"layer {l}", clip_on=False)
    if log:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        last = int(steps[shown][-1])
        ticks = [0, *(2**i for i in range(20) if 2**i < 0.6 * last), last]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set(xlabel="training step", ylabel=ylabel, xlim=(0, steps[shown][-1]), ylim=(0, 104))
    axes.yaxis.set_major_formatter("{x:.0f} %")


figure = Figure(figsize=(7.2, 4.2), layout="constrained")
axes = figure.add_subplot(title="Figure 1: units used in a batch of 8192 tokens")
draw(axes, "per_batch", "share of the layer's units")
figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
show(figure)

# %% [markdown]
# **Figure 1.** Every layer starts with all of its units in use. Then the lines part. Layer 0 keeps
# nearly all. The later layers lose a good part of theirs within the first 32 steps. The last two
# get a good part of that back, and with this seed layer 1 does, too: a dip, deeper
# towards the end of the model.
#
# The dip is early. A probe every 50 steps would not have shown how it begins: by step 16, most of
# the fall is over.

# %%
batch_use = recorded["per_batch"]
early = (steps >= 8) & (steps <= 64)
lowest = batch_use[early].min(axis=0)  # (L,)
print("lowest, steps 8 to 64:", [f"{x:.0%}" for x in lowest])
print("at the end:           ", [f"{x:.0%}" for x in batch_use[-1]])
assert (batch_use[0] > 0.95).all()
assert batch_use[:, 0].min() > 0.9  # layer 0
assert lowest[L - 1] < 0.75 and lowest[L - 1] < lowest[1]
lost = 1 - lowest[1:]  # layers 1 to 3
back = (batch_use[-1, 1:] - lowest[1:]) / lost
print("of what layers 1 to 3 lost, back at the end:", [f"{x:.0%}" for x in back])
assert (lost > 0.15).all() and (back[1:] > 0.25).all()
by_16 = (1 - batch_use[list(steps).index(16), 1:]) / lost
assert (by_16 > 0.5).all()  # most of the fall

# %%
figure = Figure(figsize=(9.6, 4.2), layout="constrained")
figure.get_layout_engine().set(wspace=0.08)  # room for the words between the two
axes = figure.add_subplot(121, title="Figure 2a: units on at a token")
draw(axes, "per_token", "share of the layer's units", until=128)
axes = figure.add_subplot(122, title="Figure 2b: the median used unit")
draw(axes, "median_in_sequence_used", "share of the sequence's positions", until=128)
figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
show(figure)

# %% [markdown]
# **Figure 2** explains the dip. On the left, use per token starts at one half, as it must: an
# untrained ReLU gets numbers of either sign, equally often. Then it falls in all layers but the
# first, and shows no dip. On the right, the median used unit of the later layers goes from about
# one half up to nearly 100 % of the positions around step 16, and then down.
#
# So in the dip a token has about as many units on as before. But they are the *same* units at every
# token, and the others are on at none: which units are on hardly depends on the input any more.
# That fits what tutorial 3 saw in the loss at that time: around step 32 it is near the unigram,
# where a model knows how frequent tokens are, and needs no input for that.
#
# Later, units begin to tell tokens apart. Most of that comes after the picture's end: at step 128,
# the median used unit of the later layers is on at about half of the positions (the middle one of
# these layers, that is; seeds differ). At the end of the run it is on at less than a third. Now
# units fire rarely, and few are on at a time.

# %%
token_use, steady = recorded["per_token"], recorded["median_in_sequence_used"]
assert (abs(token_use[0] - 0.5) < 0.1).all()
at_16 = list(steps).index(16)
print("at step 16, the median used unit is on at", [f"{x:.0%}" for x in steady[at_16]])
assert steady[at_16, L - 1] > 0.9 and token_use[at_16, L - 1] > 0.3
assert token_use[at_16, L - 1] > 0.8 * recorded["per_sequence"][at_16, L - 1]  # the same units
assert abs(probes[list(steps).index(32)]["val_loss"] - unigram) < 0.4
assert steady[at_16, 0] < 0.75
at_128 = list(steps).index(128)
for when, row in (("at step 128", steady[at_128]), ("at the end", steady[-1])):
    print(f"{when}, it is on at", [f"{x:.0%}" for x in row])
assert 0.3 < np.median(steady[at_128, 1:]) < 0.7 and (steady[-1, 1:] < 1 / 3).all()
assert (steady[at_128, 1:] > steady[-1, 1:]).all()

# %%
figure = Figure(figsize=(7.2, 4.2), layout="constrained")
axes = figure.add_subplot(title="Figure 5: units on at a token, the whole run")
draw(axes, "per_token", "share of the layer's units", log=False)
figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
show(figure)

# %% [markdown]
# **Figure 5.** With even steps: layers 1 to 3 are below a third at the end, layer 0 has hardly left
# one half. Why the first layer is the slowest here is one of the questions that this project is
# for.

# %%
print("per token at the end:", [f"{x:.0%}" for x in token_use[-1]])
assert (token_use[-1, 1:] < 1 / 3).all() and abs(token_use[-1, 0] - 0.5) < 0.15

# %% [markdown]
# ## 6. What a run this small cannot say
#
# * **Whether it reproduces the paper.** There, the first layer collapses to about 13 % per batch at
#   convergence (when training on changes hardly anything), and the last one keeps about 96 %. Here
#   the first layer keeps nearly everything. That is no contradiction: this run is a tiny part of a
#   training, of another model on another text.
# * **Where it ends.** The lines of figure 5 look settled at the end. But the last probes are at
#   steps 128, 256 and 400, and between them nothing was measured: the lines only join the dots. And
#   they go on: in the longer run of tutorial 3, layer 0 is below 40 % at the end. Two dots at one
#   height say nothing about the next 20,000 steps.
# * **What is dead.** A unit that was silent on 8192 tokens may fire on the next ones. Were tokens
#   independent, silence on N of them would mean a firing rate below 3/N, at 95 % confidence: here
#   3/8192 = 0.037 %. They are not independent, so even that is too bold. We call it *silent on 8192
#   tokens*.
# * **Whether it was chance.** This was one seed. Another one gives other lines: try it, and only
#   believe in what all of them show.
#
# How much the batch matters can be seen at once. Take smaller batches, and use per batch falls,
# though nothing about the model has changed.

# %%
assert round(100 * 3 / 8192, 3) == 0.037 and list(steps[-3:]) == [128, 256, 400]
for size in (512, 2048, 8192):
    n = size // T  # sequences
    shares = [on[L - 1][b : b + n].any(axis=(0, 1)).mean() for b in range(0, B, n)]
    print(f"last layer, batches of {size:4} tokens: {np.mean(shares):.1%} in use")
    assert np.mean(shares) <= per_batch[L - 1] + 1e-12
silent = [int((~o.any(axis=(0, 1))).sum()) for o in on]
print(f"units silent on {B * T} tokens, by layer: {silent} of {F}")
assert np.allclose(silent, F * (1 - per_batch))

# %% [markdown]
# ## Exercises
#
# Worked solutions: `solutions/05_seeing_sparsity.py`. Take all sizes from the shapes of the
# arguments, not from this page: the checks use others.
#
# **Exercise 1.** Write `per_batch_of`, use per batch for any batch size: cut the sequences into
# batches of `batch_tokens // T` sequences, in order, leave out an unfilled rest, and take the mean.

# %%


def per_batch_of(o: np.ndarray, batch_tokens: int) -> float:
    """Of one layer, ``o`` (B, T, F): mean over batches of the share of units on in them.

    Take B, T and F from ``o.shape``; the check uses others.
    """
    ...


_ = check_per_batch(per_batch_of)

# %% [markdown]
# **Exercise 2.** Reuse within a sequence (Mirzadeh et al. 2023): after the first t tokens of a
# sequence, what share of the units has not been used yet? Return it for t = 1, 2, ..., T, as the
# mean over sequences. If it levels off high, those units' weights need never be loaded for this
# text. (`np.logical_or.accumulate` or `np.cumsum` help.)

# %%


def unused_after(o: np.ndarray) -> np.ndarray:
    """Of one layer, ``o`` (B, T, F): (T,), share of units not used in the first t tokens.

    Take B, T and F from ``o.shape``; the check uses others.
    """
    ...


_ = check_unused(unused_after)

# %% [markdown]
# **Exercise 3.** What does a unit fire on? Write `fires_on`: for each token of the vocabulary, the
# share of its occurrences at which the unit is on; 0 for a token that does not occur. `o_j` is
# (B, T), one unit of a layer.

# %%


def fires_on(o_j: np.ndarray, tokens: np.ndarray, d_vocab: int) -> np.ndarray:
    """(B, T) bool and (B, T) int to (V,): share of each token's occurrences with the unit on.

    Take all sizes from the arguments (V is ``d_vocab``); the check uses others.
    """
    ...


if check_fires_on(fires_on):
    unit = int(on[0].mean(axis=(0, 1)).argmin())  # the rarest of layer 0
    share = fires_on(on[0][:, :, unit], tokens, config.d_vocab)
    best = np.argsort(-share)[:8]
    print(f"unit {unit} of layer 0:", [run.tokenizer.decode([int(i)]) for i in best], share[best])

# %% [markdown]
# ## What to try next
#
# * Another seed: put `"seed": 1` into `"train"` in section 1. Which lines stay, and which were
#   chance?
# * Longer, wider: `minirelu train` runs a larger model for a few minutes and writes all of these
#   figures, and a list of every unit with what it fires on, into one page.
# * `minirelu sparsity RUN --corpus my.txt` measures on a text of your own.
#   [measures.md](measures.md) explains every measure, and [glossary.md](glossary.md) every word.

# %%
temporary.cleanup()
