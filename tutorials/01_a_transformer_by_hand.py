# %% [markdown]
# # 1. A Transformer by hand
#
# **What you will be able to do.** Take eight tokens through a whole Transformer with a few lines
# of NumPy for each step, name the shape of every array on the way, read an attention pattern, and
# say what one hidden unit of an MLP (multi-layer perceptron) looks for.
#
# **Time.** About 30 minutes of reading, a few seconds of computing.
#
# **You need** Python, and what a matrix product is. Nothing else: every other word is explained
# where it comes up, or in the [glossary](glossary.md).
#
# A Transformer reads a text and says, after every piece of it, which piece may come next. It does
# this with a chain of simple operations, none of which is longer than five lines. Here you write
# them one after the other. The library has them too and hands out every array in between, so
# after each step we ask: is mine equal to the library's?

# %%
import math

import numpy as np
from checks_01 import check_losses, check_pattern, check_share_on
from common import show
from matplotlib.figure import Figure

import minirelu as mr
from minirelu.text.tokenizer import Tokenizer
from minirelu.training.optimizers import adam_step

np.set_printoptions(precision=2, suppress=True, linewidth=100)

# %% [markdown]
# ## A text with a rule in it
#
# To see a model at work we want a text whose rules we know. Each line of ours is a bracket, five
# colours drawn at random, and the closing bracket of the same kind. So some things in it can be
# known (which bracket closes a line), and some cannot (the next colour).

# %%
rng = np.random.default_rng(1)
COLOURS = ["red", "blue", "green", "black"]
BRACKETS = ["()", "[]", "{}"]


def make_line() -> str:
    opening, closing = BRACKETS[rng.integers(len(BRACKETS))]
    return opening + " ".join(rng.choice(COLOURS, 5)) + closing + "\n"


text = "".join(make_line() for _ in range(400))
print("\n".join(text.splitlines()[:4]))

# %% [markdown]
# ## From text to tokens
#
# A model computes with numbers, so the text becomes numbers first. The plainest way is one number
# per byte. It is also wasteful: the model would spend its effort on spelling. **Byte-pair
# encoding** starts from bytes, finds the pair of neighbours that occurs most often, makes it a
# unit of its own, and does that again and again. Frequent words become single units in the end.
# Such a unit is a **token**, the list of all of them the **vocabulary**, its length is called
# `V`.

# %%
tokenizer = Tokenizer.train(iter([text]), d_vocab=300)
ids = np.array(tokenizer.encode(text))
V = tokenizer.size
print(V, "tokens: 256 bytes, one that ends a document, and", V - 257, "merged ones")
print([tokenizer.decode([i]) for i in ids[:8]])
print(ids[:8])

assert tokenizer.decode(list(ids)) == text  # nothing is lost
assert len(ids) == 8 * 400  # eight tokens a line
assert tokenizer.encode("\n[") == [199, 59]  # two numbers that the text below speaks of

# %% [markdown]
# Every line is exactly eight tokens: bracket, five colours, bracket, line feed. A colour after a
# space is another token than the same colour after a bracket, because the space belongs to it.
#
# The model's task at each position is to guess the next token. So the **targets** are the tokens,
# moved by one. `T` is the number of positions, here 8.

# %%
T = 8
lines = ids.reshape(-1, T)  # one line of the text a row
sequences = np.column_stack([lines[:-1], lines[1:, 0]])  # and the first token of the next line
tokens, targets = sequences[-1, :-1], sequences[-1, 1:]  # (T,) each: the line we follow
labels = [repr(tokenizer.decode([t])) for t in tokens]
target_labels = [repr(tokenizer.decode([t])) for t in targets]
for t in range(T):
    print(f"position {t}: reads {labels[t]:9} and should guess {target_labels[t]}")

# %% [markdown]
# ## A model to look into
#
# An untrained model's arrays are noise. So we train a tiny one first. How that works is the
# subject of tutorials 2 and 3: take the next cell on trust. It shows the model sixteen lines at a
# time, 300 times, and moves every *weight* (a number that training chooses) a little so that the
# *loss* falls, a number that says how wrong the guesses are. The last lines of the text are kept
# from it. The second to last is ours: the very last has no next line for its line feed to guess.
#
# The words of this table are explained below, each where it is needed. Skip it now, and come back
# when you meet a letter.
#
# | letter | what it counts | here | name in the library |
# |---|---|---|---|
# | `T` | positions | 8 | |
# | `C` | numbers in the vector of one position | 8 | `d_model` |
# | `H` | attention heads | 2 | `n_heads` |
# | `D` | numbers in the vector of one head, `C / H` | 4 | `d_head` |
# | `F` | hidden units of the MLP | 12 | `d_mlp` |
# | `V` | tokens in the vocabulary | printed above | `d_vocab` |
# | `L` | layers | 1 | `n_layers` |

# %%
C, H, D, F, L = 8, 2, 4, 12, 1
as_printed = (len(COLOURS), len(BRACKETS), H) == (4, 3, 2)  # what the text says is about these
config = mr.ModelConfig(
    n_layers=L, n_heads=H, d_model=C, d_mlp=F, n_ctx=T, d_vocab=V, init="nanodo"
)
params = mr.init_params(config, seed=3, dtype=np.float64)
m, v = mr.Parameters(config, np.float64), mr.Parameters(config, np.float64)
for step in range(1, 301):
    batch = sequences[rng.integers(0, 380, 16)]  # (16, T + 1); the last 19 are never shown
    loss, grads = mr.loss_and_grads(params, batch[:, :-1], batch[:, 1:], config, "reference")
    adam_step(params.flat, grads.flat, m.flat, v.flat, step, 0.01, 0.9, 0.99, 1e-8, 0.0)
    if step in (1, 10, 100, 300):
        print(f"step {step:3}: loss {loss:.2f}")
        if step == 1:
            first_loss = loss
print(mr.n_params(config), "weights, in", len(params), "arrays")
assert mr.n_params(config) < 3000

# %% [markdown]
# `mr.forward` runs the model and returns the result, `logits`, and every array on the way, by
# name. The library works on `B` sequences at once. We have one, so its arrays begin with an axis
# of length 1, which `[0]` takes off. (A *hook* is a place where one can look in. The names are
# those of TransformerLens, a library for looking into larger models.)

# %%
logits_library, acts = mr.forward(params, tokens[None, :], config)  # (1, T, V)
for name, array in acts.items():
    print(f"{name:32} {array.shape}")


def equal(mine: np.ndarray, name: str) -> None:
    """Compare an array with the library's activation of that name."""
    theirs = acts[name][0]
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    assert np.allclose(mine, theirs, rtol=1e-10, atol=1e-12), name
    print(f"{name} {mine.shape}: equal")


# %% [markdown]
# ## Embedding: a vector for each token
#
# The number of a token means nothing: above, the line feed is token 199 and a bracket is token 59,
# but a line feed is not "more" than a bracket. So each token gets a vector of `C` numbers of its
# own, which training chooses: row `tokens[t]` of the matrix `W_E`.
#
# Attention, below, looks at a *set* of vectors and would not notice their order. So each position
# adds a vector of its own as well: row `t` of `W_pos`.

# %%
W_E, W_pos = params["embed.W_E"], params["pos_embed.W_pos"]  # (V, C), (n_ctx, C)
embed = W_E[tokens]  # (T, C)
x = embed + W_pos[:T]  # (T, C)
print(x)
equal(embed, "hook_embed")
equal(x, "blocks.0.hook_resid_pre")

# %% [markdown]
# `x` is the **residual stream**: one vector per position. Everything that follows reads from it
# and *adds* something to it. Nothing is ever overwritten.
#
# ## Layer norm: the same size for everybody
#
# What is added up may grow large or small. The operations that read it work best if it does not.
# So each reader first brings every position's vector to mean 0 and variance 1, then gives each of
# its `C` numbers a gain `w` and a bias `b`, which are learned. `eps` is tiny and only there so
# that a vector of equal numbers does not divide by 0.

# %%


def layernorm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    mean = x.mean(axis=-1, keepdims=True)  # (T, 1)
    scale = np.sqrt(x.var(axis=-1, keepdims=True) + config.ln_eps)  # (T, 1)
    return (x - mean) / scale * w + b  # (T, C)


normal = layernorm(x, np.ones(C), np.zeros(C))  # with no gain and bias yet
print("means    ", normal.mean(axis=-1))
print("variances", normal.var(axis=-1))
assert np.allclose(normal.mean(axis=-1), 0) and np.allclose(normal.var(axis=-1), 1, atol=0.01)

x1 = layernorm(x, params["blocks.0.ln1.w"], params["blocks.0.ln1.b"])  # (T, C)
equal(x1, "blocks.0.ln1.hook_normalized")

# %% [markdown]
# ## Attention: reading from earlier positions
#
# To guess the closing bracket at position 5, the model must know what stood at position 0.
# Attention is the only operation that carries anything from one position to another. Three
# vectors are made of each position's `x1`, by three matrices:
#
# - a **query** `q`: what am I looking for?
# - a **key** `k`: what have I got?
# - a **value** `v`: what do I hand over to those who ask?
#
# `H` heads do this side by side, each with `D = C / H` numbers of its own.

# %%


def attention_weights(name: str) -> np.ndarray:
    return params["blocks.0.attn." + name]


q = (x1 @ attention_weights("W_Q") + attention_weights("b_Q")).reshape(T, H, D)
k = (x1 @ attention_weights("W_K") + attention_weights("b_K")).reshape(T, H, D)
v = (x1 @ attention_weights("W_V") + attention_weights("b_V")).reshape(T, H, D)
for array, name in ((q, "q"), (k, "k"), (v, "v")):
    equal(array, f"blocks.0.attn.hook_{name}")

# %% [markdown]
# How well does the query of position `i` fit the key of position `j`? Their dot product says so:
# it is large if the two vectors point the same way. A sum of `D` products grows with `D`;
# dividing by `sqrt(D)` keeps its size the same for heads of any width.
#
# A position must not look at what comes after it: that is what it must guess. So those scores
# become minus infinity.

# %%
scores = np.zeros((H, T, T))  # head, query, key
for h in range(H):
    scores[h] = q[:, h] @ k[:, h].T / math.sqrt(D)
later = np.arange(T)[None, :] > np.arange(T)[:, None]  # (T, T): the key is later than the query
scores[:, later] = -np.inf
print(scores[-1])  # of the last head
equal(scores, "blocks.0.attn.hook_attn_scores")

# %% [markdown]
# **Softmax** makes shares of scores: positive, adding up to 1, the larger the score the larger
# the share. `exp` makes them positive, and `exp(-inf)` is exactly 0. Subtracting the largest
# score first changes nothing (it cancels in the division) and keeps `exp` from overflowing.

# %%


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


pattern = softmax(scores)  # (H, T, T)
equal(pattern, "blocks.0.attn.hook_pattern")
assert np.allclose(pattern.sum(axis=-1), 1)
assert np.all(pattern[:, later] == 0)  # exactly: nothing leaks from the future

figure = Figure(figsize=(9.6, 4.4), layout="constrained")
for h, axes in enumerate(figure.subplots(1, H, squeeze=False)[0]):
    axes.imshow(pattern[h], cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(T), labels, rotation=60)
    axes.set_yticks(range(T), labels)
    axes.set(
        title=f"head {h}", xlabel="key: looked at", ylabel="query: is looking" if not h else ""
    )
    axes.grid(False)
    for i in range(T):
        for j in range(i + 1):
            colour = "white" if pattern[h, i, j] > 0.6 else "black"
            axes.text(j, i, f"{pattern[h, i, j]:.1f}", ha="center", va="center", color=colour)
        axes.axhspan(  # what comes later is forbidden, which is not the same as a small share
            i - 0.5,
            i + 0.5,
            (i + 1) / T,
            1,
            facecolor="lightgrey",
            edgecolor="grey",
            hatch="///",
            lw=0,
        )
show(figure)

# %% [markdown]
# Read it row by row: each row is one position, and says how its attention is spread. Hatched
# cells are forbidden: those keys come later. The first row has only itself to look at. Now
# row 5, the last colour, where the closing bracket is to be
# guessed: one of the heads looks at position 0, the opening bracket, with most of its
# attention. Nobody told it to. It is what lowered the loss.

# %%
at_bracket = pattern[:, 5, 0]  # (H,)
print("attention from position 5 to the opening bracket, by head:", at_bracket)
assert not as_printed or at_bracket.max() > 0.5  # evenly spread it would be 1/6

# %% [markdown]
# Each position now collects the values of itself and of the earlier positions, weighted by its
# row of the pattern. The `H` results are
# laid side by side again and mixed by one more matrix, `W_O`. The result is added to
# the residual stream.

# %%
z = np.zeros((T, H, D))
for h in range(H):
    z[:, h] = pattern[h] @ v[:, h]
equal(z, "blocks.0.attn.hook_z")
attn_out = z.reshape(T, C) @ attention_weights("W_O") + attention_weights("b_O")  # (T, C)
equal(attn_out, "blocks.0.hook_attn_out")
x = x + attn_out  # (T, C)
equal(x, "blocks.0.hook_resid_mid")

# %% [markdown]
# ## The MLP: F little detectors
#
# The second half of a layer works on each position alone. Written as matrix products it is one
# line. But look at one hidden unit `j` by itself. It has two vectors of its own, row `j` of
# `W_in` and row `j` of `W_out`:
#
# 1. it compares the position's vector with its **key**, `W_in[j]`, and adds `b_in[j]`;
# 2. if the result is not above 0, it says **nothing at all**: exactly 0 (that is the **ReLU**);
# 3. otherwise it writes its **value**, `W_out[j]`, that many times.
#
# So a unit is a detector with an announcement. The MLP is `F` of them, and a sum.

# %%
W_in, b_in = params["blocks.0.mlp.W_in"], params["blocks.0.mlp.b_in"]  # (F, C), (F,)
W_out, b_out = params["blocks.0.mlp.W_out"], params["blocks.0.mlp.b_out"]  # (F, C), (C,)
x2 = layernorm(x, params["blocks.0.ln2.w"], params["blocks.0.ln2.b"])  # (T, C)
equal(x2, "blocks.0.ln2.hook_normalized")

pre, post = np.zeros((T, F)), np.zeros((T, F))
mlp_out = np.tile(b_out, (T, 1))  # (T, C)
for j in range(F):
    pre[:, j] = x2 @ W_in[j] + b_in[j]  # how well does each position fit unit j's key?
    post[:, j] = np.maximum(pre[:, j], 0)  # off where it does not
    mlp_out += post[:, j, None] * W_out[j]  # its value, as often as it fits
equal(pre, "blocks.0.mlp.hook_pre")
equal(post, "blocks.0.mlp.hook_post")
equal(mlp_out, "blocks.0.hook_mlp_out")

in_one_line = np.maximum(x2 @ W_in.T + b_in, 0) @ W_out + b_out  # the same, as matrix products
assert np.allclose(in_one_line, mlp_out)

# %% [markdown]
# What has each detector learned to look for? One column of the picture is one unit. White is off.

# %%
figure = Figure(figsize=(7.2, 4.0), layout="constrained")
axes = figure.subplots()
image = axes.imshow(np.where(post > 0, post, np.nan), cmap="viridis_r", vmin=0)
places = [f"{t}: {labels[t]}" for t in range(T)]  # position and token
axes.set_yticks(range(T), places)
axes.set_xticks(range(F))
axes.set(title="hook_post: what each hidden unit says at each token", xlabel="hidden unit j")
axes.grid(False)
figure.colorbar(image, label="activation")
show(figure)

for j in range(F):
    where = [places[t] for t in range(T) if post[t, j] > 0]
    print(f"unit {j:2} is on at  {'   '.join(where) or 'none of these tokens'}")

# %% [markdown]
# Most units are on at some of the tokens and off at the others. Most of the picture is white: at
# each token half of the units or fewer are on.
#
# What does a unit look for? Eight tokens cannot say. Take unit 6: here it is on at one ` red` and
# off at the two before it, which are the same token. So it does not look for red. The cell below
# asks all lines of the text at which positions a unit is on:
#
# - unit 6 is on at every position 5 and nowhere else, whatever the colour: it says that the
#   bracket is to be closed now;
# - unit 1 is on at every colour and every closing bracket, positions 1 to 6, and nearly never at
#   the two tokens outside;
# - unit 11 is on at every opening bracket and every line feed, and hardly ever at a colour.
#
# That a detector is so easy to name is luck, and due to a text with so simple a rule. Look at
# unit 7: on at some of the tokens in the middle, and no plain word says which.
#
# A unit that is on at none of them is *silent on these 8 tokens*. No more than that is known about
# it: on another line it may well be on. The cell below counts silent units once for this line and
# once for the whole text.
#
# White means *exactly* 0, not "small". So a unit that is off can be left out, with nothing lost:
# no need to multiply its value by 0, or even to read it from memory. That is what this whole
# project is about: which units are on, when, and what can be left out because of it.

# %%
_, acts_of_text = mr.forward(params, sequences[:, :-1], config)
post_of_text = acts_of_text["blocks.0.mlp.hook_post"]  # (S, T, F), S lines
share_at = (post_of_text > 0).mean(axis=0)  # (T, F): share of the lines
for j in (1, 6, 7, 11):
    print(f"unit {j:2} is on, by position:", "  ".join(f"{share:4.0%}" for share in share_at[:, j]))
if as_printed:
    assert ((post > 0).sum(axis=1) <= F / 2).all()  # half of the units or fewer
    assert share_at[5, 6] > 0.9 and np.delete(share_at[:, 6], 5).max() < 0.1
    assert share_at[1:7, 1].min() > 0.9 and share_at[[0, 7], 1].max() < 0.1
    assert share_at[[0, 7], 11].min() > 0.9 and share_at[1:6, 11].max() < 0.3

post_of_text = post_of_text.reshape(-1, F)  # (N, F)
silent_line, silent_text = (int(np.sum(~(a > 0).any(axis=0))) for a in (post, post_of_text))
print(f"silent on these {T} tokens: {silent_line} of {F} units;", end=" ")
print(f"on the {len(post_of_text)} tokens of the text: {silent_text}")
assert silent_text <= silent_line

share_off = np.mean(post == 0)
print(f"exactly 0: {share_off:.0%} of hook_post")
assert not as_printed or 0.5 < share_off < 0.9

t = 5
on = np.flatnonzero(post[t] > 0)
only_those = post[t, on] @ W_out[on] + b_out  # (C,): the other rows of W_out are never read
assert np.allclose(only_those, mlp_out[t])
print(f"at {labels[t]} {len(on)} of {F} rows give the whole answer")
assert len(on) < F

x = x + mlp_out  # (T, C)
equal(x, "blocks.0.hook_resid_post")

# %% [markdown]
# That was one layer: attention, then MLP. A larger model does the same again, with other weights,
# as often as it has layers.
#
# ## From vectors to a guess
#
# What is left is to say which token comes next. The last layer norm tidies the vector up. Then it
# is compared with the embedding of *every* token of the vocabulary by a dot product. Those `V`
# scores are the **logits**. The same matrix `W_E` serves at both ends; one says that the two are
# *tied*.

# %%
final = layernorm(x, params["ln_final.w"], params["ln_final.b"])  # (T, C)
equal(final, "ln_final.hook_normalized")
logits = final @ W_E.T  # (T, V)
assert np.allclose(logits, logits_library[0])
probs = softmax(logits)  # (T, V): from scores to shares, as before

for t in range(T):
    best = np.argsort(-probs[t])[:4]
    guesses = "  ".join(f"{tokenizer.decode([i])!r} {probs[t, i]:.0%}" for i in best)
    print(f"after {labels[t]:9} {guesses}")

# %% [markdown]
# The model knows what can be known. After the last colour it expects the right bracket, then a
# line feed. After those it spreads its bets, over four colours or three brackets, as it should:
# those are drawn at random.
#
# ## The loss: how surprised was it?
#
# The model gave the token that really came a probability `p`. Its **loss** there is `-log(p)`: 0
# if it was certain and right, large if it thought that token impossible. With the natural
# logarithm the unit is the **nat**. The loss of a text is the mean over its tokens.

# %%
p = probs[np.arange(T), targets]  # (T,)
losses = -np.log(p)  # (T,)
for t in range(T):
    print(f"{labels[t]:9} -> {target_labels[t]:9} p = {p[t]:.2f}   loss {losses[t]:.2f}")
loss_library, _ = mr.cross_entropy(logits_library, targets[None, :])
assert np.isclose(losses.mean(), loss_library)
print(f"loss of the line: {losses.mean():.2f}")

# %% [markdown]
# Is that good? A baseline helps. Nobody can guess a colour better than 1 in 4, which costs
# `log(4)`, and the next line's bracket better than 1 in 3. Five colours and one bracket of eight
# tokens: no model can stay below about 1.00 on average over a long text. The other end: one that
# gives each of the `V` tokens the same chance pays `log(V)`, about 5.6.
#
# The losses printed during training lie about between the two, but not strictly. Confident random
# guesses can be worse than `log(V)`, as at step 1; and one small batch can be lucky, as the one of
# step 300 is if its loss is below the best possible.

# %%
best_possible = (5 * math.log(len(COLOURS)) + math.log(len(BRACKETS))) / 8
guessing = math.log(V)
print(f"best possible {best_possible:.2f}, guessing blindly {guessing:.2f}")
print(f"in training: step 1 {first_loss:.2f}, step 300 {loss:.2f}")
assert not as_printed or (first_loss > guessing and abs(loss - best_possible) < 0.2)
assert abs(guessing - 5.6) < 0.1
if as_printed:
    assert abs(best_possible - 1.00) < 0.01
    assert best_possible - 0.3 < losses.mean() < 1.5
    assert losses[5:7].max() < 0.5  # the closing bracket and the line feed are known

# %% [markdown]
# ## The whole model, once more
#
# Here are all of the steps without the stops: this is all that a GPT does. Real ones have more
# layers and wider vectors. We run it with a fresh, untrained model of three layers, as a last
# comparison. Its loss is near blind guessing, as it should be before the first step of training.

# %%


def transformer(params: mr.Parameters, tokens: np.ndarray, config: mr.ModelConfig) -> np.ndarray:
    T, D = len(tokens), config.d_head
    x = params["embed.W_E"][tokens] + params["pos_embed.W_pos"][:T]  # (T, C)
    for l in range(config.n_layers):
        p = {name.removeprefix(f"blocks.{l}."): array for name, array in params.items()}
        x1 = layernorm(x, p["ln1.w"], p["ln1.b"])  # (T, C)
        q, k, v = (x1 @ p[f"attn.W_{n}"] + p[f"attn.b_{n}"] for n in "QKV")  # (T, C)
        z = np.zeros_like(x1)  # (T, C)
        for h in range(config.n_heads):
            own = slice(h * D, (h + 1) * D)  # the columns of head h
            scores = q[:, own] @ k[:, own].T / math.sqrt(D)  # (T, T)
            scores[np.arange(T)[None, :] > np.arange(T)[:, None]] = -np.inf
            z[:, own] = softmax(scores) @ v[:, own]
        x = x + z @ p["attn.W_O"] + p["attn.b_O"]
        x2 = layernorm(x, p["ln2.w"], p["ln2.b"])  # (T, C)
        post = np.maximum(x2 @ p["mlp.W_in"].T + p["mlp.b_in"], 0)  # (T, F)
        x = x + post @ p["mlp.W_out"] + p["mlp.b_out"]
    return layernorm(x, params["ln_final.w"], params["ln_final.b"]) @ params["embed.W_E"].T


larger = mr.ModelConfig(n_layers=3, n_heads=4, d_model=32, d_mlp=128, n_ctx=T, d_vocab=V)
untrained = mr.init_params(larger, seed=0, dtype=np.float64)
mine = transformer(untrained, tokens, larger)
theirs, _ = mr.forward(untrained, tokens[None, :], larger)
assert np.allclose(mine, theirs[0])
fresh_loss, _ = mr.cross_entropy(theirs, targets[None, :])
print(f"untrained: {fresh_loss:.2f}; log(V) = {math.log(V):.2f}")
assert abs(fresh_loss - math.log(V)) < 0.2

# %% [markdown]
# ## Exercises
#
# Fill in the functions, run the cell, and read what the check says. Take all sizes from the
# shapes of the arguments: the check uses others than the tutorial. Solutions are in
# `solutions/01_a_transformer_by_hand.py`.
#
# **1. Attention.** Write the pattern of one head: shares of attention, from the head's queries
# and keys. A position sees itself and what is before it.

# %%


def my_pattern(q: np.ndarray, k: np.ndarray) -> np.ndarray | None:
    """(T, D) and (T, D) to (T, T); take T and D from q.shape, the check uses others."""
    return None  # your lines here


_ = check_pattern(my_pattern)

# %% [markdown]
# **2. How many detectors are on?** Make an array of `T` numbers: for each token of our line, the
# share of the `F` hidden units that are on. Its mean is the model's *per-token use*, the first
# measure of sparsity in this project.

# %%
share_on = None  # use post, (T, F), from above
_ = check_share_on(share_on, post)

# %% [markdown]
# **3. Loss.** Write the loss of each token, in nats, from logits and targets. Logits may be
# large: `np.exp(1000)` is infinite, `-np.log(0)` too, and your loss should not be. So take the log
# before you divide: `log(exp(a) / sum) = a - log(sum)`.

# %%


def my_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """(T, V) and (T,) to (T,); take T and V from logits.shape, the check uses others."""
    return None  # your lines here


_ = check_losses(my_losses)

# %% [markdown]
# ## What to try next
#
# - Give the model four brackets instead of three, or two colours instead of four, and predict the
#   best possible loss before you run it. (What the text says of single units and shares is then
#   no longer checked: see `as_printed`.)
# - Set `H, D = 1, 8`. Can one head still find the bracket?
# - Set one row of `W_in` and its `b_in` to 0. That unit is off for ever. How much does the loss
#   of the line change, and for which units hardly at all?
# - The library's own version of these steps is in `minirelu/model/`: `attention.py`,
#   `mlp.py`, `layernorm.py`, `transformer.py`. You can read all of it now, the forward half
#   at least.
# - Tutorial 2 goes through the same steps backwards: how much does the loss change if a weight
#   changes?
