# %% [markdown]
# # 2. Backward, one operation at a time
#
# **What you will be able to do.** Derive and write the backward pass of a linear map, ReLU, the
# loss, layer norm and attention; check each numerically, so that you *know* it is right; put them
# together to the gradient of a whole Transformer; and find a mistake in somebody else's.
#
# **Time.** About 45 minutes of reading, a few seconds of computing.
#
# **You need** tutorial 1, and what a derivative is.
#
# Training asks one question over and over: if this weight were a little larger, would the loss
# rise or fall, and how fast? The answer for one weight is a derivative. All of them together are
# the **gradient**. Trying each weight in turn would need one run of the model per weight. The
# backward pass gets all of them for about the price of two runs.

# %%
import math
from collections.abc import Callable

import numpy as np
from checks_02 import check_squared_relu_backward, check_unembedding_backward, check_wrong_line
from common import show
from matplotlib.figure import Figure

import minirelu as mr
from minirelu.model import attention as library_attention
from minirelu.model import layernorm as library_layernorm
from minirelu.model import mlp as library_mlp

rng = np.random.default_rng(0)
np.set_printoptions(precision=3, suppress=True, linewidth=100)

# %% [markdown]
# ## One rule
#
# Take one operation in the middle of a model, `y = f(x)`. The loss depends on `y`, and through it
# on `x`. Write `dy` for the derivative of the loss with respect to each number of `y`, so `dy` has
# the shape of `y`. The backward of `f` has one task: **given `dy`, find `dx`**. It need not know
# what comes after `f`; `dy` says all of that. The **chain rule** gives the answer: every way from a
# number of `x` to the loss contributes (how `y` changes with `x`) times (how the loss changes with
# `y`), and the ways add up.
#
# ## First the check, then the formulas
#
# A wrong gradient does not crash. The model still learns, only worse, and nobody notices. So we
# write the check before anything else. It needs no theory: move one number up by `h`, then down
# by `h`, and see what the result does. This is called a **central difference**.

# %%


def numerical_gradient(f: Callable[[], float], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """(f with x + h) - (f with x - h), over 2h, for each number of x. Changes x, and back."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        before = x[i]
        x[i] = before + h
        above = f()
        x[i] = before - h
        below = f()
        x[i] = before
        gradient[i] = (above - below) / (2 * h)
    return gradient


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Length of the difference, as a share of the length."""
    scale = max(np.linalg.norm(a), np.linalg.norm(b))
    assert scale > 0, "a gradient of nothing but zeros tests nothing"
    return float(np.linalg.norm(a - b) / scale)


# %% [markdown]
# How small should `h` be? Try it on a function whose derivative we know: the sum of `x**3` has `3
# x**2`. The picture shows the error of the central difference for many `h`, in both precisions.

# %%
steps = 10.0 ** np.arange(-12, 0)
errors = {}
for dtype in (np.float64, np.float32):
    x = rng.normal(size=50).astype(dtype)
    exact = 3 * x**2
    errors[dtype] = [
        relative_error(numerical_gradient(lambda x=x: (x**3).sum(), x, h), exact) for h in steps
    ]

figure = Figure(figsize=(6.4, 3.6), layout="constrained")
axes = figure.subplots()
for dtype, values in errors.items():
    axes.loglog(steps, values, "o-", label=dtype.__name__)
axes.set(title="Error of a numerical gradient", xlabel="step h", ylabel="relative error")
axes.set_ylim(1e-12, 100)
axes.legend()
show(figure)

# %% [markdown]
# From the right, the error falls: over a shorter step a curve is straighter. Then it rises again:
# the two results become so alike that their difference is mostly rounding. In float64 the best is
# near `h = 1e-5`, with an error below 1e-8. In float32 no `h` gets below 1e-5, and a wrong
# formula could hide in that. So **checks run in float64**, also if training uses float32.

# %%
best = min(errors[np.float64])
assert best < 1e-8 and 1e-7 < steps[errors[np.float64].index(best)] < 1e-3
assert min(errors[np.float32]) > 1e-5

# %% [markdown]
# A model's operation gives an array, but a derivative needs one number. So we multiply `y` by a
# random array `dy` and add up: `f = (y * dy).sum()`. Its derivative with respect to `y` is `dy` by
# construction. So if we hand this `dy` to our backward, its `dx` must be the numerical gradient of
# `f`.

# %%


def compare(
    f: Callable[[], float], pairs: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """``pairs``: name to (a variable that f reads, our gradient of it). Returns the errors."""
    errors = {}
    for name, (variable, gradient) in pairs.items():
        errors[name] = relative_error(numerical_gradient(f, variable), gradient)
        verdict = "right" if errors[name] < 1e-6 else "WRONG"
        print(f"d{name:6} {gradient.shape!s:9} relative error {errors[name]:.0e}  {verdict}")
    return errors


def check(f: Callable[[], float], pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    assert max(compare(f, pairs).values()) < 1e-6


# %% [markdown]
# ## Linear: `y = x @ W + b`
#
# Written for one number of the result, with `n` a token, `i` an input, `c` an output:
#
#     y[n, c] = sum over i of x[n, i] * W[i, c]  +  b[c]
#
# - `x[n, i]` goes into every `y[n, c]`, multiplied by `W[i, c]`. So `dx[n, i]` is the sum over
#   `c` of `dy[n, c] * W[i, c]`, which is `dy @ W.T`.
# - `W[i, c]` goes into `y[n, c]` for every token `n`, multiplied by `x[n, i]`. So `dW[i, c]` is
#   the sum over `n` of `x[n, i] * dy[n, c]`, which is `x.T @ dy`.
# - `b[c]` goes into `y[n, c]` for every token, as it is. So `db[c]` is the sum of `dy` over
#   tokens.
#
# A way to remember it: `dx` has the shape of `x` and `dW` that of `W`. There is only one way to
# multiply these arrays that gives those shapes. And note the price: one product forward, two
# backward. That is why a backward pass costs about two forward passes, however many weights there
# are.

# %%


def linear(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    return x @ W + b  # (N, in) @ (in, out)


def linear_backward(dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, ...]:
    dx = dy @ W.T  # y = x @ W + b, with respect to x
    dW = x.T @ dy  # ... with respect to W
    db = dy.sum(axis=0)  # ... with respect to b
    return dx, dW, db


x, W, b = rng.normal(size=(6, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
dy = rng.normal(size=(6, 4))
dx, dW, db = linear_backward(dy, x, W)
check(lambda: (linear(x, W, b) * dy).sum(), {"x": (x, dx), "W": (W, dW), "b": (b, db)})

# %% [markdown]
# The errors are far below 1e-6: that is what "right" looks like. "Wrong" is unmistakable. Forget
# the sum over tokens in `db`, say, and take the first token only:

# %%
f = lambda: (linear(x, W, b) * dy).sum()
wrong = compare(f, {"b": (b, dy[0])})
assert wrong["b"] > 0.1

# %% [markdown]
# ## ReLU: `y = max(x, 0)`
#
# Where `x > 0`, `y` is `x`: a change passes through as it is. Where `x < 0`, `y` stays 0 whatever
# `x` does: nothing passes. So `dx` is `dy` where `x > 0`, and **exactly 0** elsewhere.
#
# At `x = 0` there is a kink, and no derivative. A central difference there gives half of `dy`. It
# is a matter of taste what the backward says, as no training run will meet an exact 0 often. Like
# everybody we say 0. But a *check* must keep away from the kink.

# %%


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, dy, 0)


x, dy = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
assert np.abs(x).min() > 1e-3  # away from the kink
check(lambda: (relu(x) * dy).sum(), {"x": (x, relu_backward(dy, x))})

kink = np.zeros(1)
assert np.isclose(numerical_gradient(lambda: relu(kink).sum(), kink)[0], 0.5)

# %% [markdown]
# The MLP is linear, ReLU, linear. Its backward is the three backwards in reverse order. The
# library stores the two matrices *unit-major*: row `j` of each belongs to hidden unit `j`. So
# `W_in` is `W.T` of the formula above, and so is its gradient.

# %%


def mlp_backward(dy, x, W_in, b_in, W_out):
    pre = x @ W_in.T + b_in  # (N, F)
    dpost, dW_out, db_out = linear_backward(dy, relu(pre), W_out)  # y = post @ W_out + b_out
    dpre = relu_backward(dpost, pre)  # post = relu(pre)
    dx, dW_in_T, db_in = linear_backward(dpre, x, W_in.T)  # pre = x @ W_in.T + b_in
    return dx, dW_in_T.T, db_in, dW_out, db_out


N, C, F = 12, 3, 8
x, dy = rng.normal(size=(N, C)), rng.normal(size=(N, C))
W_in, W_out = rng.normal(size=(F, C)), rng.normal(size=(F, C))
b_in, b_out = rng.normal(size=F), rng.normal(size=C)
b_in[2] = -100.0  # unit 2 is off at every token
y, saved = library_mlp.mlp_forward(x, W_in, b_in, W_out, b_out)
mine = mlp_backward(dy, x, W_in, b_in, W_out)
theirs = library_mlp.mlp_backward(dy, W_in, W_out, saved)
assert all(np.allclose(a, b) for a, b in zip(mine, theirs, strict=True))
f = lambda: (library_mlp.mlp_forward(x, W_in, b_in, W_out, b_out)[0] * dy).sum()
variables = {"x": x, "W_in": W_in, "b_in": b_in, "W_out": W_out, "b_out": b_out}
check(f, {name: (variables[name], mine[i]) for i, name in enumerate(variables)})

print("dW_in, row by row:", np.abs(mine[1]).sum(axis=1))
assert np.all(mine[1][2] == 0) and mine[2][2] == 0 and np.all(mine[3][2] == 0)

# %% [markdown]
# Look at row 2. A unit that is off at every token gets a gradient of exactly 0, in `W_in`, `b_in`
# and `W_out`. Two things follow, and both return in later tutorials. The work for that unit can
# be left out, in the backward too. And nothing in this batch tells the unit how to come back.
#
# ## The loss: softmax and cross-entropy in one
#
# The loss of one token is `-log(p[target])` with `p = softmax(logits)`. Put the two together
# before deriving, and nearly everything cancels:
#
#     loss = -log(exp(logits[target]) / sum of exp(logits))
#          = log(sum of exp(logits)) - logits[target]
#
# The derivative of the first part with respect to `logits[i]` is `exp(logits[i]) / sum of
# exp(logits)`, which is `p[i]` again. The second part gives -1 for the target, and 0 for all
# others. So
#
#     dlogits = p - (1 at the target, 0 elsewhere)
#
# In words: lower every token's score by the probability you gave it, and add 1 to the right one.
# The loss of a text is the mean over its `N` tokens, so each token's share is divided by `N`.

# %%


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    p = softmax(logits)[np.arange(len(targets)), targets]  # (N,)
    return float(-np.log(p).mean())


def cross_entropy_backward(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    dlogits = softmax(logits)  # (N, V)
    dlogits[np.arange(len(targets)), targets] -= 1  # loss = log(sum) - logits[target]
    return dlogits / len(targets)  # a mean over N tokens


logits, targets = 3 * rng.normal(size=(4, 7)), rng.integers(0, 7, 4)
dlogits = cross_entropy_backward(logits, targets)
check(lambda: cross_entropy(logits, targets), {"logits": (logits, dlogits)})
print("each row adds up to 0:", dlogits.sum(axis=1))
assert np.allclose(dlogits.sum(axis=1), 0)
assert np.allclose(dlogits, mr.cross_entropy(logits[None], targets[None])[1][0])

# %% [markdown]
# ## Layer norm
#
#     normal = (x - mean) / scale,   scale = sqrt(variance + eps)
#     y = normal * w + b
#
# `w` and `b` are like a linear map, number by number: `dw = sum of dy * normal`, `db = sum of
# dy`, both over tokens, and `dnormal = dy * w`. The rest is about one token's vector of `C`
# numbers.
#
# Move `x[j]` alone by a little. Three things happen to `normal[i]`:
#
# 1. if `i = j`, it moves too, by `1 / scale`;
# 2. the mean moves by `1 / C`, which lowers every `normal[i]` by `1 / (C * scale)`;
# 3. the scale moves. From `scale**2 = variance + eps` it does so by `normal[j] / C`, and that
#    changes every `normal[i]` by `-normal[i] * normal[j] / (C * scale)`.
#
# The sum over `i`, each times `dnormal[i]`, is
#
#     dx[j] = (dnormal[j] - mean(dnormal) - normal[j] * mean(dnormal * normal)) / scale
#
# It can be read without the derivation. `normal` does not change if a constant is added to all of
# `x`, nor (except for `eps`) if `x` grows in proportion. So the gradient must have nothing to say
# about these two directions, and the two means take them out.

# %%


def layernorm(x: np.ndarray, w: np.ndarray, b: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    scale = np.sqrt(x.var(axis=-1, keepdims=True) + eps)  # (N, 1)
    return (x - x.mean(axis=-1, keepdims=True)) / scale * w + b


def layernorm_backward(dy, x, w, eps=1e-5):
    scale = np.sqrt(x.var(axis=-1, keepdims=True) + eps)  # (N, 1)
    normal = (x - x.mean(axis=-1, keepdims=True)) / scale  # (N, C)
    dw = (dy * normal).sum(axis=0)  # y = normal * w + b, with respect to w
    db = dy.sum(axis=0)  # ... with respect to b
    dnormal = dy * w  # ... with respect to normal
    by_mean = dnormal.mean(axis=-1, keepdims=True)  # (N, 1)
    by_scale = normal * (dnormal * normal).mean(axis=-1, keepdims=True)  # (N, C)
    return (dnormal - by_mean - by_scale) / scale, dw, db


x, w, b = rng.normal(size=(4, 7)), rng.normal(1, 0.3, 7), rng.normal(size=7)
dy = rng.normal(size=(4, 7))
dx, dw, db = layernorm_backward(dy, x, w)
check(lambda: (layernorm(x, w, b) * dy).sum(), {"x": (x, dx), "w": (w, dw), "b": (b, db)})
_, saved = library_layernorm.layernorm_forward(x, w, b)
assert np.allclose(dx, library_layernorm.layernorm_backward(dy, w, saved)[0])

# %% [markdown]
# **A check that cannot fail.** Why a *random* `dy`, and a `w` that is not 1? Take ones for both,
# as many a test does. Then `dy` is a constant vector, the very direction that layer norm ignores.
# So the right `dx` is 0 up to rounding, and so is that of many wrong formulas: here is one
# without the last term. With absolute errors it would pass.

# %%


def without_last_term(dy: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    dnormal = dy * w
    return (dnormal - dnormal.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)


ones, w1 = np.ones((4, 7)), np.ones(7)
print(f"all ones, right formula: dx {np.abs(layernorm_backward(ones, x, w1)[0]).max():.0e}")
print(f"all ones, wrong formula: dx {np.abs(without_last_term(ones, x, w1)).max():.0e}")
assert np.abs(layernorm_backward(ones, x, w1)[0]).max() < 1e-12
assert np.abs(without_last_term(ones, x, w1)).max() < 1e-12
wrong = compare(lambda: (layernorm(x, w, b) * dy).sum(), {"x": (x, without_last_term(dy, x, w))})
assert wrong["x"] > 0.01

# %% [markdown]
# ## Attention
#
# Queries, keys and values are linear maps, and so is the step from `z` to the output. We have
# those. Between them, for one head with `T` positions:
#
#     scores  = q @ k.T / sqrt(D), -inf where the key is later
#     pattern = softmax(scores)
#     z       = pattern @ v
#
# The first and the last are products of two matrices that *both* depend on `x`. So each gives two
# gradients, by the rules of the linear map. Only the softmax is new. One row of it is `p =
# softmax(s)`. If `s[j]` rises, `exp(s[j])` grows in proportion, which gives `p[j]` a derivative
# of `p[j]`. But the sum below the fraction grows too, so all of them shrink: `p[i]` has `-p[i] *
# p[j]` on top. Each times `dp[i]`, and summed:
#
#     ds[j] = p[j] * (dp[j] - sum over i of p[i] * dp[i])
#
# Where the mask made `p[j]` 0, `ds[j]` is exactly 0: nothing leaks from the future in the
# backward either.

# %%


def softmax_backward(dpattern: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    return pattern * (dpattern - (dpattern * pattern).sum(axis=-1, keepdims=True))


scores, dpattern = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
dscores = softmax_backward(dpattern, softmax(scores))
check(lambda: (softmax(scores) * dpattern).sum(), {"scores": (scores, dscores)})

# %% [markdown]
# Now all of it. `x` feeds queries, keys and values, so three gradients come back to it, and they
# add up. That is the chain rule again: every way counts.

# %%
Array = np.ndarray


def attention(x: Array, p: dict[str, Array], H: int) -> tuple[Array, dict[str, Array]]:
    """(T, C) to (T, C), and what the backward needs; p: W_Q, b_Q, and so on."""
    T, C = x.shape
    D = C // H
    q, k, v = (linear(x, p["W_" + n], p["b_" + n]) for n in "QKV")  # (T, C)
    later = np.arange(T)[None, :] > np.arange(T)[:, None]  # (T, T)
    z, patterns = np.zeros_like(x), []
    for h in range(H):
        own = slice(h * D, (h + 1) * D)  # the columns of head h
        scores = q[:, own] @ k[:, own].T / math.sqrt(D)  # (T, T)
        patterns.append(softmax(np.where(later, -np.inf, scores)))
        z[:, own] = patterns[h] @ v[:, own]
    return linear(z, p["W_O"], p["b_O"]), {"q": q, "k": k, "v": v, "pattern": patterns, "z": z}


def attention_backward(
    dout: Array, x: Array, p: dict[str, Array], saved: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    q, k, v, patterns = (saved[name] for name in ("q", "k", "v", "pattern"))
    D = x.shape[1] // len(patterns)
    grads = {}
    dz, grads["W_O"], grads["b_O"] = linear_backward(dout, saved["z"], p["W_O"])
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for h, pattern in enumerate(patterns):
        own = slice(h * D, (h + 1) * D)
        dpattern = dz[:, own] @ v[:, own].T  # z = pattern @ v, with respect to pattern
        dv[:, own] = pattern.T @ dz[:, own]  # ... with respect to v
        dscores = softmax_backward(dpattern, pattern)  # pattern = softmax(scores)
        # scores = q @ k.T / sqrt(D)
        dq[:, own] = dscores @ k[:, own] / math.sqrt(D)  # with respect to q
        dk[:, own] = dscores.T @ q[:, own] / math.sqrt(D)  # with respect to k
    dx = np.zeros_like(x)
    for n, d in (("Q", dq), ("K", dk), ("V", dv)):
        part, grads["W_" + n], grads["b_" + n] = linear_backward(d, x, p["W_" + n])
        dx += part  # x was used three times
    return dx, grads


T, C, H = 5, 6, 2
x, dout = rng.normal(size=(T, C)), rng.normal(size=(T, C))
p = {f"W_{n}": rng.normal(size=(C, C)) for n in "QKVO"}
p |= {f"b_{n}": rng.normal(size=C) for n in "QKVO"}
out, saved = attention(x, p, H)
dx, grads = attention_backward(dout, x, p, saved)
f = lambda: (attention(x, p, H)[0] * dout).sum()
check(f, {"x": (x, dx), **{name: (p[name], grads[name]) for name in p if name != "b_K"}})

their_out, their_saved = library_attention.attention_forward(x[None], p, H)
their_dx, _ = library_attention.attention_backward(dout[None], x[None], p, their_saved)
assert np.allclose(out, their_out[0]) and np.allclose(dx, their_dx[0])

# %% [markdown]
# `b_K` was left out of the check. Its gradient is 0: a bias of the keys adds the same number to
# all scores of a query, and softmax does not see that. A *relative* error of nothing is
# meaningless, so it is looked at by itself. This parameter never learns anything, in any
# Transformer that has it.

# %%
print(f"largest db_K: {np.abs(grads['b_K']).max():.0e}")
print(f"numerically:  {np.abs(numerical_gradient(f, p['b_K'])).max():.0e}")
assert np.abs(grads["b_K"]).max() < 1e-12

# %% [markdown]
# ## The whole model
#
# The large parts are in place. Two small ones remain:
#
# - `x = x + something(x)`. The gradient goes both ways and meets again: `dx` gets what it is,
#   plus what comes back through `something`.
# - `W_E` is used twice, as embedding and for the logits. Both gradients add up. A token that
#   occurs three times has used its row three times, so `np.add.at` adds three gradients to it
#   (`+=` with a list of rows would keep only one of them).
#
# Read the function from top to bottom: it is the forward of tutorial 1, read upwards.

# %%


def whole_backward(params, acts, dlogits, config, attention_backward=attention_backward):
    """Gradient of every parameter, for one sequence; acts from mr.forward."""
    a = {name: array[0] for name, array in acts.items()}  # one sequence: without the axis B
    grads = {}
    last = a["ln_final.hook_normalized"]  # (T, C)
    dx, dW_E = dlogits @ params["embed.W_E"], dlogits.T @ last  # logits = last @ W_E.T

    def norm_backward(name, dy, x):
        dx, dw, db = layernorm_backward(dy, x, params[name + ".w"])
        grads[name + ".w"], grads[name + ".b"] = dw, db
        return dx

    dx = norm_backward("ln_final", dx, a[f"blocks.{config.n_layers - 1}.hook_resid_post"])
    for l in reversed(range(config.n_layers)):
        block = f"blocks.{l}."
        W_in, b_in, W_out = (params[f"{block}mlp.{n}"] for n in ("W_in", "b_in", "W_out"))
        dx2, *mlp_grads = mlp_backward(dx, a[block + "ln2.hook_normalized"], W_in, b_in, W_out)
        for n, g in zip(("W_in", "b_in", "W_out", "b_out"), mlp_grads, strict=True):
            grads[f"{block}mlp.{n}"] = g
        dx = dx + norm_backward(block + "ln2", dx2, a[block + "hook_resid_mid"])

        own = {w + n: params[f"{block}attn.{w}{n}"] for n in "QKVO" for w in ("W_", "b_")}
        T, C = dx.shape
        saved = {n: a[f"{block}attn.hook_{n}"].reshape(T, C) for n in ("q", "k", "v", "z")}
        saved["pattern"] = list(a[block + "attn.hook_pattern"])
        dx1, attn_grads = attention_backward(dx, a[block + "ln1.hook_normalized"], own, saved)
        grads |= {f"{block}attn.{n}": g for n, g in attn_grads.items()}
        dx = dx + norm_backward(block + "ln1", dx1, a[block + "hook_resid_pre"])

    np.add.at(dW_E, a["tokens"], dx)  # x = W_E[tokens] + W_pos[:T]
    grads["embed.W_E"] = dW_E
    grads["pos_embed.W_pos"] = np.zeros_like(params["pos_embed.W_pos"])
    grads["pos_embed.W_pos"][: len(dx)] = dx
    return grads


config = mr.ModelConfig(n_layers=2, n_heads=2, d_model=8, d_mlp=16, n_ctx=6, d_vocab=20)
params = mr.Parameters(config, np.float64)
for name, array in params.items():  # gains that are not 1, biases that are not 0
    array[...] = rng.normal(1.0 if name.endswith(".w") else 0.0, 0.3, array.shape)
tokens, targets = rng.integers(0, 20, (1, 6)), rng.integers(0, 20, (1, 6))

logits, acts = mr.forward(params, tokens, config)
loss, dlogits = mr.cross_entropy(logits, targets)
mine = whole_backward(params, acts, dlogits[0], config)
library = mr.backward(params, acts, dlogits, config)
assert set(mine) == set(library)
assert all(np.allclose(mine[name], library[name], atol=1e-12) for name in library)
print(len(mine), "arrays of gradients, all equal to the library's")

# %% [markdown]
# Equal to the library is good; but what if both are wrong? So the model is checked numerically as
# well. One central difference for each of its weights would be slow in a larger model. There is a
# cheaper way: move *all* numbers of one array at once, in a random direction. The loss must
# change by the gradient's component along it. A mistake anywhere in the array shows.

# %%


def loss_now() -> float:
    return mr.cross_entropy(mr.forward(params, tokens, config)[0], targets)[0]


def error_along_directions(name: str, gradient: np.ndarray, h: float = 1e-6) -> float:
    """Largest error along three random directions, as a share of the gradient's length."""
    array, before, worst = params[name], params[name].copy(), 0.0
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=array.shape)
        direction /= np.linalg.norm(direction)
        array[...] = before + h * direction
        above = loss_now()
        array[...] = before - h * direction
        numerical = (above - loss_now()) / (2 * h)
        array[...] = before
        error = abs(numerical - (gradient * direction).sum()) / np.linalg.norm(gradient)
        worst = max(worst, float(error))
    return worst


kinks = min(np.abs(acts[f"blocks.{l}.mlp.hook_pre"]).min() for l in range(2))
assert kinks > 1e-5, "a hidden unit lies on its kink"
names = [name for name in params if not name.endswith("b_K")]
right = {name: error_along_directions(name, mine[name]) for name in names}
print(f"largest relative error of {len(right)} arrays: {max(right.values()):.0e}")
assert max(right.values()) < 1e-6

# %% [markdown]
# That is how the library's own tests do it (`tests/model/test_gradients.py`), for every operation
# and every array. They also compare with another program, HuggingFace's OPT.
#
# ## Somebody else's backward
#
# The next function is `attention_backward`, written by somebody in a hurry. One line of it is
# wrong. Don't read it closely yet. Do as with any long program: let the checks say where to look.

# %%


def hasty_attention_backward(dout, x, p, saved):
    q, k, v, patterns = (saved[name] for name in ("q", "k", "v", "pattern"))
    D = x.shape[1] // len(patterns)
    dz = dout @ p["W_O"].T
    grads = {"W_O": saved["z"].T @ dout, "b_O": dout.sum(axis=0)}
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for h, pattern in enumerate(patterns):
        own = slice(h * D, (h + 1) * D)
        dpattern = dz[:, own] @ v[:, own].T
        dv[:, own] = pattern.T @ dz[:, own]
        dscores = pattern * (dpattern - (dpattern * pattern).sum(axis=0, keepdims=True))
        dq[:, own] = dscores @ k[:, own] / math.sqrt(D)
        dk[:, own] = dscores.T @ q[:, own] / math.sqrt(D)
    for n, d in (("Q", dq), ("K", dk), ("V", dv)):
        grads["W_" + n], grads["b_" + n] = x.T @ d, d.sum(axis=0)
    dx = dq @ p["W_Q"].T + dk @ p["W_K"].T + dv @ p["W_V"].T
    return dx, grads


hasty = whole_backward(params, acts, dlogits[0], config, hasty_attention_backward)
wrong = {name: error_along_directions(name, hasty[name]) for name in names}

rows = ["ln_final.w", "ln_final.b"]  # in the order of the backward
for l in (1, 0):
    for part in ("mlp", "ln2", "attn", "ln1"):
        rows += [name for name in names if name.startswith(f"blocks.{l}.{part}.")]
rows += ["embed.W_E", "pos_embed.W_pos"]
assert sorted(rows) == sorted(names)
figure = Figure(figsize=(7.2, 7.6), layout="constrained")
axes = figure.subplots()
for label, found, marker in (("ours", right, "o"), ("in a hurry", wrong, "x")):
    axes.semilogx([found[name] for name in rows], range(len(rows)), marker, label=label)
axes.axvline(1e-6, color="#777777", linewidth=1, linestyle="--")
axes.set_yticks(range(len(rows)), rows, fontsize=8)
axes.invert_yaxis()
axes.set(title="Relative error of each gradient, from the loss down", xlabel="relative error")
axes.legend(loc="upper center")
show(figure)
above = rows[: rows.index("blocks.1.ln2.b") + 1]
assert all(wrong[name] < 1e-6 for name in above)

# %% [markdown]
# Read the picture from the top, as the backward goes. All is well until the attention of layer 1.
# From there on nearly everything is wrong, down to the embedding. That does not mean that there
# are many mistakes: each backward hands its `dx` on, so one wrong `dx` spoils all that comes
# after it. **Look at the first array that is wrong, and at its neighbours that are not.**

# %%
for name in ("Q", "K", "V", "O"):
    print(f"blocks.1.attn.W_{name}: relative error {wrong['blocks.1.attn.W_' + name]:.0e}")
print(f"largest db_K, which should be 0: {np.abs(hasty['blocks.1.attn.b_K']).max():.0e}")
assert np.abs(hasty["blocks.1.attn.b_K"]).max() > 1e-6
assert wrong["blocks.1.attn.W_O"] < 1e-6 and wrong["blocks.1.attn.W_V"] < 1e-6
assert wrong["blocks.1.attn.W_Q"] > 1e-3 and wrong["blocks.1.attn.W_K"] > 1e-3
assert wrong["blocks.0.mlp.W_in"] > 1e-6 and wrong["embed.W_E"] > 1e-6

# %% [markdown]
# ## Exercises
#
# Solutions are in `solutions/02_backward_one_operation_at_a_time.py`.
#
# **1. The bug.** `W_O` and `W_V` are right, `W_Q` and `W_K` are not. Which line of
# `hasty_attention_backward` do both of the wrong ones depend on, and none of the right ones? Give
# the name of the array that this line makes, as a string. Then repair the line and run its cell
# again: in the picture, all crosses move to the left. (The `assert` lines of the cell after it
# say that something is wrong. They will stop you now, and you may delete them.)

# %%
wrong_line = None  # one of "dz", "dpattern", "dv", "dscores", "dq", "dk", "dx"
_ = check_wrong_line(wrong_line)

# %% [markdown]
# **2. The unembedding.** `logits = x @ W_E.T` is a linear map whose matrix is stored with one row
# per token. Write its backward.

# %%


def my_unembedding_backward(dlogits: np.ndarray, x: np.ndarray, W_E: np.ndarray):
    """(N, V), (N, C) and (V, C) to dx (N, C) and dW_E (V, C)."""
    dx = None  # your lines here
    dW_E = None
    return dx, dW_E


_ = check_unembedding_backward(my_unembedding_backward)

# %% [markdown]
# **3. Another activation.** Some models use the *squared* ReLU, `y = max(x, 0)**2`. It is just as
# sparse, and has no kink. Write its backward, and check it yourself with `compare` before you ask
# the check.

# %%


def my_squared_relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray | None:
    """dx, of the shape of x."""
    return None  # your lines here


_ = check_squared_relu_backward(my_squared_relu_backward)

# %% [markdown]
# ## What to try next
#
# - Break one of the functions above, in any way you like, and predict which rows of the picture
#   turn wrong before you run it.
# - Find a mistake that no check here would find. (One: `eps` missing in `scale`. The inputs are
#   so large that it does not show. The library's tests have a separate case for that.)
# - Read the library's backward in `minirelu/model/transformer.py`: it is the function above, for
#   `B` sequences at once.
# - Train with your squared ReLU: put the pair into `minirelu/model/activation_functions.py`, as
#   `CONTRIBUTING.md` says, under a name of your own (`relu2` is the library's); `minirelu check`
#   compares your backward with differences, and `minirelu train --preset tiny --act-fn YOURS` uses
#   it.
# - Tutorial 3 does something with the gradient: it trains.
