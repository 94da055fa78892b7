"""FetchSGD, Sketched-SGD and SketchedAMSGrad, one loop each, everybody's state in one place.

A round takes x^{r-1} to x^r. `gradient(i, x, r)` is worker i's (stochastic) gradient in round r.
`sketch(r)` is that round's sketch as signs, shape (rows, columns, d). `events(r)` says of the round
which workers were reached, whose sketches came in, and whose exact values; which of the latter
learn of it from a model that comes whole; and which workers have forgotten everything before it.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Events:
    reached: list = field(default_factory=list)
    sketched: list = field(default_factory=list)
    exact: list = field(default_factory=list)
    whole: list = field(default_factory=list)
    forgot: list = field(default_factory=list)


def estimates(signs, table):
    return np.median(np.einsum("rcd,rc->rd", signs, table), axis=0)


def top(values, k):
    return np.sort(np.argsort(-np.abs(values), kind="stable")[:k])  # ties to the lowest place


def mean(vectors, weights, who):
    return np.average(vectors[who], axis=0, weights=weights[who])


def fetchsgd(x, gradient, weights, sketch, lr, k, events, momentum, zero=False, mask=False):
    signs = sketch(0)
    u, e = np.zeros(signs.shape[:2]), np.zeros(signs.shape[:2])
    r = 0
    while True:
        r += 1
        who = events(r).sketched
        if who:
            tables = [signs @ gradient(i, x, r) for i in who]
            u = momentum * u + np.average(tables, axis=0, weights=weights[who])
            e = e + lr * u
            read = estimates(signs, e)
            places = top(read, k)
            step = np.zeros_like(x)
            step[places] = read[places]
            x = x - step
            sent = signs @ step
            e = np.where(sent != 0, 0.0, e) if zero else e - sent
            u = np.where(sent != 0, 0.0, u) if mask else u
        yield x, {"u": u, "e": e}


def sketched_sgd(x, gradient, weights, sketch, lr, k, events, momentum, candidates):
    u, v = np.zeros((2, weights.size, x.size))
    r = 0
    while True:
        r += 1
        now, signs = events(r), sketch(r)
        u[now.forgot] = v[now.forgot] = 0
        for i in now.reached:
            u[i] = momentum * u[i] + gradient(i, x, r)
            v[i] = v[i] + u[i]
        if now.exact:
            read = estimates(signs, signs @ mean(v, weights, now.sketched))
            asked = top(read, candidates * k)
            w = mean(v, weights, now.exact)
            chosen = asked[top(w[asked], k)]
            x = x.copy()
            x[chosen] -= lr * w[chosen]
            for i in now.exact:
                sent = asked if i in now.whole else chosen
                u[i, sent] = v[i, sent] = 0
        yield x, {"u": u, "v": v}


def sketched_amsgrad(
    x, gradient, weights, sketch, lr, k, events, beta1, beta2, eps, candidates, *, trap=False
):
    """With `trap`, v is refreshed at the k largest gradients only."""
    m, e, g = np.zeros((3, weights.size, x.size))
    owed_at = np.full(weights.size, lr(1))
    v = np.full(x.size, eps)
    v_hat = v.copy()
    r = 0
    while True:
        r += 1
        now, signs = events(r), sketch(r)
        m[now.forgot] = e[now.forgot] = 0
        for i in now.reached:
            g[i] = gradient(i, x, r)
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            e[i] = m[i] + owed_at[i] / lr(r) * e[i]
            owed_at[i] = lr(r)
        if now.exact:
            read = estimates(signs, signs @ mean(e, weights, now.sketched)) / np.sqrt(v_hat)
            asked = top(read, candidates * k)
            a, mean_g = mean(e, weights, now.exact), mean(g, weights, now.exact)
            fresh = top(mean_g, k) if trap else asked
            v = v.copy()
            v[fresh] = beta2 * v[fresh] + (1 - beta2) * mean_g[fresh] ** 2
            v_hat = np.maximum(v_hat, v)
            w = a / np.sqrt(v_hat)
            chosen = asked[top(w[asked], k)]
            x = x.copy()
            x[chosen] -= lr(r) * w[chosen]
            for i in now.exact:
                e[i, asked if i in now.whole else chosen] = 0
        yield x, {"m": m, "e": e, "v": v, "v_hat": v_hat}


def amsgrad(x, gradient, lr, beta1, beta2, eps):
    """AMSGrad (Reddi, Kale, Kumar 2018) with v_0 = eps, of one gradient."""
    m, v = np.zeros_like(x), np.full(x.size, eps)
    v_hat = v.copy()
    r = 0
    while True:
        r += 1
        g = gradient(x, r)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_hat = np.maximum(v_hat, v)
        x = x - lr * m / np.sqrt(v_hat)
        yield x
