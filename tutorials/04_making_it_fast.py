# %% [markdown]
# # 4. Making it fast
#
# **What you will be able to do.** Write a compiled kernel, count the arithmetic of an MLP, leave
# out the part of it that is a multiplication by zero, and tell from one picture whether a kernel
# waits for arithmetic or for memory, on your own machine.
#
# **Time.** About 30 minutes of reading, 20 seconds of computing; more the first time, when kernels
# are compiled.
#
# **You need** the forward and backward of the MLP (tutorials 1 and 2).
#
# Times below are measured where you run this, so yours will differ from those printed here. What
# is checked is that all ways give the *same numbers*, never how long they took.

# %%
import time
from collections.abc import Callable

import numba
import numpy as np
from checks_04 import check_arithmetic_left, check_attainable, check_dW_in_from_pairs
from common import show
from matplotlib.figure import Figure

import minirelu as mr
from minirelu.bench.benchmarks import mlp_arrays, our_mlp
from minirelu.bench.machine import copy_bytes, matmul_flops
from minirelu.bench.rates import kernel_rates
from minirelu.bench.timing import alternate
from minirelu.figures.roofline import draw_roofline
from minirelu.model.mlp import mlp_backward, mlp_forward

DENSE, SPARSE, OTHER = "#0072B2", "#D55E00", "#999999"


def milliseconds(call: Callable[[], object]) -> float:
    """Time of one call, after a first one that does not count."""
    call()
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


# %% [markdown]
# ## 1. What a kernel is
#
# Take one line of the MLP: `post = np.maximum(pre + b_in, 0)`. It looks like one operation, but
# NumPy makes two passes over the array. The first reads `pre` and writes `pre + b_in` to new
# memory. The second reads that again and writes `post`. On an array larger than the processor's
# caches, nearly all of the time goes into moving numbers, not into adding them.
#
# A **kernel** is a loop of our own that does everything to a number while it is in hand: two moves
# in place of four. In plain Python it would be hopeless, far slower than NumPy. So Numba translates
# it to machine code. In minirelu every kernel is such a plain function, which also
# runs without Numba; that makes it possible to step through it with a debugger.

# %%


def bias_relu(pre, b_in, post):
    """``post = max(pre + b_in, 0)``: one pass."""
    for t in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            value = pre[t, j] + b_in[j]
            post[t, j] = value if value > 0 else 0


fast_bias_relu = numba.njit(bias_relu)

rng = np.random.default_rng(0)
pre = rng.standard_normal((2048, 2048), dtype=np.float32)  # (N, F)
b_in = rng.standard_normal(2048, dtype=np.float32)  # (F,)
post = np.empty_like(pre)

fast_bias_relu(pre, b_in, post)
np.testing.assert_array_equal(post, np.maximum(pre + b_in, 0))
bias_relu(pre[:20], b_in, post[:20])  # the plain function, on 20 rows
np.testing.assert_array_equal(post[:20], np.maximum(pre[:20] + b_in, 0))

part_ms = milliseconds(lambda: bias_relu(pre[:20], b_in, post[:20]))
print(f"plain Python  {part_ms * len(pre) / 20:8.1f} ms (from 20 of the 2048 rows)")
print(f"NumPy         {milliseconds(lambda: np.maximum(pre + b_in, 0)):8.1f} ms")
print(f"kernel        {milliseconds(lambda: fast_bias_relu(pre, b_in, post)):8.1f} ms")

# %% [markdown]
# ## 2. One MLP, and its arithmetic
#
# Now the whole MLP: N = 2048 tokens, C = 128 numbers each, F = 2048 hidden units. The weights are
# random, with biases that leave about 5 % of the pairs (token, unit) on, as in a model that has
# been trained for a while.
#
# Forward and backward are six matrix products of the same size. A product of (N, C) and (C, F) has
# N·C·F multiplications and as many additions: about 1.07 billion operations, and six times that in
# all.

# %%
N, C, F = 2048, 128, 2048
a = mlp_arrays(F, share_on=0.05, N=N, C=C)
x, W_in, b_in, W_out, dy = (a[name] for name in ("x", "W_in", "b_in", "W_out", "dy"))
product = 2 * N * C * F
print(f"one product: {product / 1e9:.2f} billion operations; all six: {6 * product / 1e9:.2f}")
assert round(product / 1e9, 2) == 1.07


def numpy_mlp() -> dict[str, np.ndarray]:
    """The reference: tutorials 1 and 2."""
    y, saved = mlp_forward(x, W_in, b_in, W_out, None)
    dx, dW_in, db_in, dW_out, _ = mlp_backward(dy, W_in, W_out, saved)
    return {"y": y, "dx": dx, "dW_in": dW_in, "db_in": db_in, "dW_out": dW_out}


expected = numpy_mlp()
post = np.maximum(x @ W_in.T + b_in, 0)  # (N, F)
share_on = (post > 0).mean()
print(f"on: {100 * share_on:.1f} % of the pairs")
assert 0.03 < share_on < 0.07

# %% [markdown]
# ## 3. Leaving out the zeros
#
# The first product, `x @ W_in.T`, finds out who is on; it has to visit every pair. But where unit j
# is off at token t, `post[t, j]` is exactly 0, and the ReLU lets no gradient through. Each of the
# other five products multiplies by one of these two zeros. [Why exact zeros make training
# fast](why_sparsity_is_fast.md) goes through them one by one.
#
# So list the pairs that are on, and let the five walk that list. Here they all are, in one loop. Of
# the 2048 · 2048 pairs it visits one in twenty.

# %%


def walk(t, j, value, x, dy, W_in, W_out, y, dx, dW_in, db_in, dW_out):
    """Products 2 to 6; pair p is token t[p] and unit j[p], which is on with value[p]."""
    for p in range(len(t)):
        tp, jp, d = t[p], j[p], np.float32(0)
        for c in range(x.shape[1]):
            y[tp, c] += value[p] * W_out[jp, c]  # y = post @ W_out
            dW_out[jp, c] += value[p] * dy[tp, c]  # dW_out = post.T @ dy
            d += dy[tp, c] * W_out[jp, c]  # dpost = dy @ W_out.T, and dpre, since j is on
        for c in range(x.shape[1]):
            dx[tp, c] += d * W_in[jp, c]  # dx = dpre @ W_in
            dW_in[jp, c] += d * x[tp, c]  # dW_in = dpre.T @ x
        db_in[jp] += d


fast_walk = numba.njit(walk)


def list_mlp() -> dict[str, np.ndarray]:
    """One product, and then the list."""
    pre = x @ W_in.T + b_in  # product 1
    j, t = np.nonzero(pre.T > 0)  # unit by unit, so that W_in[j] and W_out[j] stay at hand
    results = {name: np.zeros_like(array) for name, array in expected.items()}
    fast_walk(t, j, pre[t, j], x, dy, W_in, W_out, *results.values())
    return results


def assert_equal(found: dict[str, np.ndarray]) -> None:
    """All five results are those of the reference, to the rounding of 32-bit sums."""
    for name, array in expected.items():
        largest = np.abs(array).max()
        np.testing.assert_allclose(found[name], array, atol=2e-5 * largest, err_msg=name)


assert_equal(list_mlp())
print("same numbers")

# %% [markdown]
# Nothing was approximated. The results differ only in the order in which numbers were added. (It
# need not be fast yet: this loop runs on one core, and NumPy's products on all.)
#
# minirelu's kernels do the same with more care: blocks of tokens that fit into a core's cache, four
# pairs at a time, all cores (`kernels/sparse_mlp.py`). Beside them stand dense kernels
# (`kernels/dense_mlp.py`), which compute everything. All give the same numbers. `alternate` lets
# the four take turns; we keep the shortest time of each, since whatever else runs on the machine
# can only make it longer.

# %%
ours = {route: our_mlp(a, route) for route in ("dense", "sparse")}
for call in ours.values():
    assert_equal(call())

contestants = {"NumPy": numpy_mlp, "our list": list_mlp, **ours}
times_ms = {name: 1e3 * min(s) for name, s in alternate(contestants, rounds=5).items()}
for name, ms in times_ms.items():
    print(f"{name:10} {ms:7.1f} ms")

figure = Figure(figsize=(7.2, 2.4), layout="constrained")
axes = figure.add_subplot(title="One MLP, forward and backward, 5 % on")
axes.barh(list(times_ms), list(times_ms.values()), color=[OTHER, OTHER, DENSE, SPARSE])
axes.invert_yaxis()
axes.grid(axis="y", visible=False)
axes.set_xlabel("milliseconds on this machine (shorter is better)")
show(figure)

# %% [markdown]
# ## 4. Where the two meet
#
# Walking a list is slower per operation than a matrix product, which uses every number that it
# loads many times over. So the list wins only if it is short enough. At half of the units on, as in
# a new model, it usually loses. Where do the two meet? Measure it.

# %%
shares = np.array([0.5, 0.35, 0.2, 0.1, 0.05, 0.02])
crossing: dict[str, list[float]] = {"dense": [], "sparse": []}
for share in shares:
    arrays = mlp_arrays(F, share, N=N, C=C)
    routes = {route: our_mlp(arrays, route) for route in crossing}
    for route, times in alternate(routes, rounds=5).items():
        crossing[route].append(1e3 * min(times))

figure = Figure(figsize=(7.2, 3.8), layout="constrained")
axes = figure.add_subplot(title="One MLP, forward and backward: where the two routes meet")
for route, color in (("dense", DENSE), ("sparse", SPARSE)):
    axes.plot(100 * shares, crossing[route], color=color, marker="o", label=route)
axes.set(xlabel="share of pairs on, %", ylabel="milliseconds", xlim=(0, 52), ylim=(0, None))
axes.legend(frameon=False)
show(figure)

slower = shares[np.array(crossing["sparse"]) > crossing["dense"]]
faster = shares[np.array(crossing["sparse"]) < crossing["dense"]]
print("the list was slower at", slower, "and faster at", faster)

# %% [markdown]
# The dense line is flat, or would be on a machine that does nothing else: it does not care who is
# on. The sparse line falls towards the cost of the one product that stays. `compute="auto"`, the
# default, looks at 32 tokens of the batch and takes the list where fewer than a third of the units
# are on: for each layer, anew at every step.
#
# At 5 %, five of the six products have a twentieth of their work left. The arithmetic promises more
# than the clock usually shows. Why?
#
# ## 5. The roofline
#
# A kernel can be held up by two things: arithmetic, of which a processor does only so much a
# second, and memory, which delivers only so many bytes a second. Which of the two depends on one
# number, the **arithmetic intensity**: operations per byte that has to move.
#
# * AdamW reads and writes seven numbers (28 bytes) for 14 operations: intensity 0.5.
# * A matrix product uses every number many times over: its intensity is in the tens or hundreds.
#
# First measure the two limits of this machine: the speed of NumPy's matrix product, and of a copy.

# %%
matmul, copy = matmul_flops(rounds=3), copy_bytes(rounds=3)
print(f"matrix product: {matmul / 1e9:.0f} billion operations a second")
print(f"copy: {copy / 1e9:.0f} billion bytes a second")
print(f"below {matmul / copy:.1f} operations per byte a kernel waits for memory")
assert matmul > 0 and copy > 0

# %% [markdown]
# Then each kernel alone. In the picture (Williams, Waterman & Patterson 2009) the slope is what
# memory can deliver, the flat roof what arithmetic can. A kernel cannot be far above either; how
# far below it is, is what there may be left to gain.

# %%
rates = kernel_rates(d_mlp=F, share_on=0.05, rounds=3)
show(draw_roofline(rates, matmul, copy, "Kernels against this machine's limits (5 % on)"))
work = {rate.name: rate for rate in rates}
assert work["AdamW"].flops / work["AdamW"].bytes == 0.5
assert all(r.flops / r.bytes > 10 for r in rates if r.group == "MLP, dense")
left = work["sparse backward to x"].flops / work["dense backward to x"].flops
all_sparse = sum(rate.flops for rate in rates if rate.group == "MLP, sparse") / (6 * product)
print(f"operations left, of the backward to x: {left:.1%}, of all six products: {all_sparse:.1%}")
assert 0.03 < left < 0.07 and 0.15 < all_sparse < 0.25

# %% [markdown]
# How to read it. Dense kernels belong near the flat roof, where there is little left to gain. AdamW
# and the norm belong near the slope: only less memory traffic could speed them up. The sparse
# backward usually lies well below the roof, because it reads and writes whole rows of 128 numbers
# for each pair and does little with them. It is slower per operation, and still ahead, since it has
# about a twentieth of the operations. Of all six products about a fifth is left: one whole, and
# what remains of five.
#
# (A point above a limit is no miracle: the limits are themselves only measurements, of one product
# and one copy, and other processes take their share while we measure.)
#
# ## 6. The whole step
#
# A training step is more than its MLPs: attention, layer norms, the loss over the vocabulary. They
# are kernels too, and do not depend on which units are on. `mr.loss_and_grads` takes the route as
# an argument. The loss and the gradient, all parameters in one vector, agree.

# %%
config = mr.ModelConfig(
    n_layers=2, n_heads=2, d_model=64, d_mlp=1024, n_ctx=64, d_vocab=512, init="nanodo"
)
params = mr.init_params(config, seed=0)
for l in range(config.n_layers):
    params[f"blocks.{l}.mlp.b_in"][:] -= 1.5  # few units on, as after some training
sequences = rng.integers(0, config.d_vocab, (16, config.n_ctx + 1))  # (B, T + 1)
tokens, targets = sequences[:, :-1], sequences[:, 1:]


def step_by(route: str) -> Callable[[], tuple[float, mr.Parameters]]:
    """Loss and gradients by one route."""
    workspace = mr.Workspace()  # memory that is used again from step to step
    return lambda: mr.loss_and_grads(params, tokens, targets, config, route, workspace)


steps = {route: step_by(route) for route in ("reference", "dense", "sparse", "auto")}
loss, grads = steps["reference"]()
step_seconds = alternate(steps, rounds=3)
for route, step in steps.items():
    found_loss, found = step()
    off = np.linalg.norm(found.flat - grads.flat) / np.linalg.norm(grads.flat)
    assert abs(found_loss - loss) < 1e-4 and off < 1e-4
    ms = 1e3 * min(step_seconds[route])
    print(f"{route:7} loss {found_loss:.5f}, gradient off by {off:.0e}, {ms:6.1f} ms")

# %% [markdown]
# ## Exercises
#
# Worked solutions: `solutions/04_making_it_fast.py`.
#
# **Exercise 1.** What share of the dense arithmetic is left when a share `s` of the pairs is on?

# %%


def arithmetic_left(s: float) -> float:
    """Operations of the sparse MLP over those of the dense one: 1 if all are on."""
    ...


_ = check_arithmetic_left(arithmetic_left)

# %% [markdown]
# **Exercise 2.** Product 6 from the list, in NumPy and without a loop: pair p says that unit `j[p]`
# was on at token `t[p]`, and the gradient there is `d[p]`. Return `dW_in`, (F, C). Take care: a
# unit occurs many times in `j`. (Look up `np.add.at`.)

# %%


def dW_in_from_pairs(t, j, d, x, F):
    """``dpre.T @ x`` where dpre is d at the pairs (t, j), and 0 elsewhere."""
    ...


_ = check_dW_in_from_pairs(dW_in_from_pairs)

# %% [markdown]
# **Exercise 3.** The roofline as a formula: how many operations a second can a kernel reach at
# best, given its intensity, and the machine's operations and bytes a second?

# %%


def attainable(intensity: float, matmul_flops: float, copy_bytes: float) -> float:
    """Operations a second, at best."""
    ...


_ = check_attainable(attainable)

# %% [markdown]
# ## What to try next
#
# * Give `mlp_arrays` another `C`: how does the meeting point move, and why?
# * `minirelu bench` measures all of this at full size, and against PyTorch and JAX where they are
#   installed.
# * Take `fast_walk` apart: make two loops of it, one that goes by tokens and one by units, so that
#   two threads never write to the same row. `kernels/sparse_mlp.py` is the result.
# * Tutorial 5: the list of units that are on is also what you will look at.
