"""What a firing can depend on: the token read, those around it, the position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

VARIABLES = ("token", "previous", "next", "position")
START = -1  # stands for what comes before a sequence


class Variable(NamedTuple):
    """One value at each of N tokens, out of X that occur.

    ``codes`` (N,) say which; ``n`` (X,) how often each occurs; ``labels`` (X, n) what it is: token
    ids (:data:`START` before a sequence begins), or a position.
    """

    codes: np.ndarray
    n: np.ndarray
    labels: np.ndarray

    def permuted(self, order: np.ndarray) -> Variable:
        """Return the same values at other places: what is left of them is chance."""
        return self._replace(codes=self.codes[order])


class Text(NamedTuple):
    """A text as units see it: S sequences of T tokens, N = S*T.

    ``variables`` has one for each of :data:`VARIABLES`; ``grams`` has the 1-, 2- and 3-grams that
    end at each token. At the beginning of a sequence these, and the preceding token, have
    :data:`START` where nothing comes before: a value of its own.
    """

    variables: dict[str, Variable]
    grams: tuple[Variable, Variable, Variable]
    n_sequences: int
    sequence_length: int

    @property
    def n_tokens(self) -> int:
        """N."""
        return self.n_sequences * self.sequence_length


def variable(values: np.ndarray) -> Variable:
    """Code values, (N,) or rows (N, n), by their rank.

    >>> variable(np.array([7, 5, 7]))
    Variable(codes=array([1, 0, 1]), n=array([1, 2]), labels=array([[5],
           [7]]))
    """
    rows = values.reshape(len(values), -1)
    labels, codes, n = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return Variable(codes.reshape(-1), n, labels)


def read_text(sequences: np.ndarray) -> Text:
    """Take down what can be read at each token of a text.

    Parameters
    ----------
    sequences : int ndarray, (S, T + 1)
        inputs and, one further, targets.

    Examples
    --------
    >>> text = read_text(np.array([[4, 5, 4, 6]]))
    >>> text.variables["next"].labels[text.variables["next"].codes, 0]
    array([5, 4, 6])
    >>> text.grams[1].labels[text.grams[1].codes].tolist()
    [[-1, 4], [4, 5], [5, 4]]
    """
    tokens = np.asarray(sequences[:, :-1], np.int64)
    S, T = tokens.shape
    before = np.pad(tokens, ((0, 0), (2, 0)), constant_values=START)
    # (N, 3): the 3-gram that ends at each token
    windows = np.stack([before[:, :T], before[:, 1 : T + 1], tokens], axis=-1).reshape(-1, 3)
    grams = (variable(windows[:, 2:]), variable(windows[:, 1:]), variable(windows))
    variables = {
        "token": grams[0],
        "previous": variable(windows[:, 1]),
        "next": variable(np.asarray(sequences[:, 1:], np.int64).ravel()),
        "position": variable(np.tile(np.arange(T), S)),
    }
    return Text(variables, grams, S, T)
