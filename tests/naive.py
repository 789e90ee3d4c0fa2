"""Slow, obvious twins of the numerical core in float64: what every fast result is held against.

Written from the papers' formulas, one parameter at a time; nothing is shared with the compiled
code. A row is a list of (feature, value). `theta` is a dict of arrays that training changes in
place: "bias" (1,), "linear" (n,), "factors" (n, k). `memory` holds an optimizer's states: arrays
of the same shapes, under a name each.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy.special import expit

PARTS = ("bias", "linear", "factors")


@dataclass
class Settings:
    """Hyperparameters; the dicts are by part."""

    lr: dict = field(default_factory=lambda: dict.fromkeys(PARTS, 0.05))
    wd: dict = field(default_factory=lambda: dict.fromkeys(PARTS, 0.02))
    l1: dict = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    eps: float = 1e-8
    clip: float = np.inf
    rescale: float = 1.0
    lr_decay: float = 0.0

    def decayed(self, epoch):
        lr = {part: value / (1 + self.lr_decay * epoch) for part, value in self.lr.items()}
        return Settings(lr, self.wd, self.l1, self.eps, self.clip, self.rescale)


def rows_of(X):
    """A scipy CSR matrix as a list of rows."""
    bounds = zip(X.indptr[:-1], X.indptr[1:], strict=True)
    return [
        list(zip(X.indices[a:b].tolist(), X.data[a:b].tolist(), strict=True)) for a, b in bounds
    ]


def score(row, theta):
    """Rendle (2010), equation 1: the interactions pair by pair."""
    V = theta["factors"]
    linear = sum(theta["linear"][i] * x for i, x in row)
    pairs = sum(V[i] @ V[j] * xi * xj for (i, xi), (j, xj) in combinations(row, 2))
    return theta["bias"][0] + linear + pairs


def slopes(row, theta):
    """Rendle (2010), equation 4: (part, index, d score / d parameter) of all that the row uses."""
    V = theta["factors"]
    result = [("bias", 0, 1.0)] + [("linear", i, x) for i, x in row]
    for i, x in row:
        others = sum((V[j] * xj for j, xj in row if j != i), np.zeros(V.shape[1]))
        result.append(("factors", i, x * others))
    return result


def loss_value(task, p, y):
    """Half the squared error; or -log of the probability given to the label."""
    if task == "regressor":
        return 0.5 * (p - y) ** 2
    return np.logaddexp(0.0, p) - y * p


def derivative(task, p, y, settings):
    """Derivative of the loss by the score p, clipped, then rescaled."""
    g = p - y if task == "regressor" else expit(p) - y
    return settings.rescale * np.clip(g, -settings.clip, settings.clip)


def no_memory(theta, *names):
    """States that are all zero, and the step count t."""
    zeros = {name: {part: np.zeros_like(array) for part, array in theta.items()} for name in names}
    return {**zeros, "t": 0}


def sgd(theta, slopes, g, weight, s, memory):
    """The step divided by 1 + weight * sum of lr |d score / d parameter|^2 (Kulis & Bartlett)."""
    reach = sum(s.lr[part] * np.sum(np.square(slope)) for part, _, slope in slopes)
    for part, at, slope in slopes:
        gradient = g * slope + s.wd[part] * theta[part][at]
        theta[part][at] -= s.lr[part] * weight / (1 + weight * reach) * gradient


def adagrad(theta, slopes, g, weight, s, memory):
    """Duchi, Hazan & Singer (2011): lr / sqrt(sum of squared gradients), per coordinate."""
    for part, at, slope in slopes:
        gradient = weight * (g * slope + s.wd[part] * theta[part][at])
        memory["n"][part][at] += gradient**2
        theta[part][at] -= s.lr[part] * gradient / np.sqrt(memory["n"][part][at] + s.eps**2)


def adam(theta, slopes, g, weight, s, memory):
    """Kingma & Ba (2015), algorithm 1, for what the row uses; t counts all rows."""
    memory["t"] += 1
    correction = np.sqrt(1 - 0.999 ** memory["t"]) / (1 - 0.9 ** memory["t"])
    m, v = memory["m"], memory["v"]
    for part, at, slope in slopes:
        gradient = weight * (g * slope + s.wd[part] * theta[part][at])
        m[part][at] = 0.9 * m[part][at] + 0.1 * gradient
        v[part][at] = 0.999 * v[part][at] + 0.001 * gradient**2
        theta[part][at] -= s.lr[part] * correction * m[part][at] / np.sqrt(v[part][at] + s.eps**2)


def ftrl(theta, slopes, g, weight, s, memory):
    """McMahan et al. (2013), algorithm 1, with beta = 1 and l2 = wd."""
    for part, at, slope in slopes:
        gradient, n = weight * g * slope, memory["n"][part][at]
        sigma = (np.sqrt(n + gradient**2) - np.sqrt(n)) / s.lr[part]
        memory["z"][part][at] += gradient - sigma * theta[part][at]
        memory["n"][part][at] += gradient**2
        theta[part][at] = ftrl_weight(part, memory["z"][part][at], memory["n"][part][at], s)


def ftrl_weight(part, z, n, s):
    """Algorithm 1's closed form: the weight that belongs to z and n."""
    below = (1 + np.sqrt(n)) / s.lr[part] + s.wd[part]
    return np.where(np.abs(z) <= s.l1[part], 0.0, -(z - np.sign(z) * s.l1[part]) / below)


def ftrl_start(part, value, s):
    """The z (with n = 0) to which `value` belongs."""
    return -value * (1 / s.lr[part] + s.wd[part]) - np.sign(value) * s.l1[part]


OPTIMIZERS = {"sgd": sgd, "adagrad": adagrad, "adam": adam, "ftrl": ftrl}


def train(optimizer, task, rows, y, weight, theta, s, orders):
    """Train row by row in the given orders; return each epoch's scores and its sum of losses."""
    memory, history = no_memory(theta, "n", "m", "v", "z"), []
    if optimizer == "ftrl":
        memory["z"] = {part: ftrl_start(part, value, s) for part, value in theta.items()}
    for epoch, order in enumerate(orders):
        now, scores, total = s.decayed(epoch), [], 0.0
        for r in order:
            p = score(rows[r], theta)
            g = derivative(task, p, y[r], now)
            OPTIMIZERS[optimizer](theta, slopes(rows[r], theta), g, weight[r], now, memory)
            scores.append(p)
            total += weight[r] * loss_value(task, p, y[r])
        history.append((np.array(scores), total))
    return history


def minibatch_adam(task, rows, y, weight, theta, s, orders, batch, pad):
    """The built-in's optimizer, from the seven rules of fm.kernels.minibatch; return the epochs'
    scores.

    `s.rescale` and `s.clip` are those of the built-in: on the sum over the batch, clip last.
    """
    memory, history, plain = no_memory(theta, "m", "v"), [], Settings()
    for order in orders:
        scores = []
        for batch_rows in (order[i : i + batch] for i in range(0, len(order), batch)):
            total = {}  # (part, index) -> sum of gradients; only what the batch uses is in it
            empty = [None] * (batch - len(batch_rows) if pad else 0)
            for r in [*batch_rows, *empty]:
                row, label, w = (rows[r], y[r], weight[r]) if r is not None else ([], 0.0, 1.0)
                p = score(row, theta)
                if r is not None:
                    scores.append(p)
                for part, at, slope in slopes(row, theta):
                    g = w * derivative(task, p, label, plain) * slope
                    total[part, at] = total.get((part, at), 0.0) + g
            memory["t"] += 1
            correction = np.sqrt(1 - 0.999 ** memory["t"]) / (1 - 0.9 ** memory["t"])
            for (part, at), gradient in total.items():
                d = np.clip(s.rescale * gradient + s.wd[part] * theta[part][at], -s.clip, s.clip)
                m = memory["m"][part][at] = 0.9 * memory["m"][part][at] + 0.1 * d
                v = memory["v"][part][at] = 0.999 * memory["v"][part][at] + 0.001 * d**2
                theta[part][at] -= s.lr[part] * correction * m / (np.sqrt(v) + s.eps)
        history.append(np.array(scores))
    return history


def factorise(users, items, y, bias, b_user, b_item, P, Q, lr, orders):
    """Matrix factorisation y ~ bias + b_u + b_i + p_u q_i by normalised SGD; changes its arrays."""
    for order in orders:
        for r in order:
            u, i = users[r], items[r]
            p, q = P[u].copy(), Q[i].copy()
            e = bias[0] + b_user[u] + b_item[i] + p @ q - y[r]
            step = lr / (1 + lr * (3 + p @ p + q @ q))
            bias[0] -= step * e
            b_user[u] -= step * e
            b_item[i] -= step * e
            P[u] -= step * e * q
            Q[i] -= step * e * p
