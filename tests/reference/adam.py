"""The Adam family, one loop each, everybody's state in one place.

A round takes x^{r-1} to x^r. `gradient(i, x, r)` is worker i's (stochastic) gradient in round r;
`compress(v, i, r)` is worker i's compressor in round r, `downlink(v, r)` the server's; `cohort(r)`
are the workers that take part; `lr(r)` is round r's step size. Without `feedback` all errors stay
0. Each yields (x, {name: state}).
"""

import numpy as np


def efficient_adam(
    x, gradient, n, compress, downlink, lr, cohort, beta1, beta2, eps, correct=False, feedback=True
):
    m, v, e = (np.zeros((n, x.size)) for _ in range(3))
    error, t = np.zeros_like(x), np.zeros(n)
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            g = gradient(i, x, r)
            t[i] += 1
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            m[i] = beta1 * m[i] + (1 - beta1) * g
            top = m[i] / (1 - beta1 ** t[i]) if correct else m[i]
            below = v[i] / (1 - beta2 ** t[i]) if correct else v[i]
            p = lr(r) * top / (np.sqrt(below) + eps) + e[i]
            delta = compress(p, i, r)
            e[i] = (p - delta) * feedback
            sent.append(delta)
        q = np.mean(sent, axis=0) + error
        delta = downlink(q, r)
        error = (q - delta) * feedback
        x = x - delta
        yield x, {"m": m, "v": v, "e": e, "error": error}


def adam(x, gradient, lr, beta1, beta2, eps, frozen_after=None):
    """Without bias correction; v as it is after `frozen_after` steps from then on."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    r = 0
    while True:
        r += 1
        g = gradient(x, r)
        m = beta1 * m + (1 - beta1) * g
        if frozen_after is None or r <= frozen_after:
            v = beta2 * v + (1 - beta2) * g**2
        x = x - lr(r) * m / (np.sqrt(v) + eps)
        yield x, {"m": m, "v": v}


def onebit_adam(
    x, gradient, n, compress, downlink, lr, cohort, warmup, beta1, beta2, eps, feedback=True
):
    m, v, error = (np.zeros_like(x) for _ in range(3))
    e = np.zeros((n, x.size))
    r = 0
    while True:
        r += 1
        if r <= warmup:
            g = np.mean([gradient(i, x, r) for i in cohort(r)], axis=0)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
        else:
            sent = []
            for i in cohort(r):
                p = beta1 * m + (1 - beta1) * gradient(i, x, r) + e[i]
                w = compress(p, i, r)
                e[i] = (p - w) * feedback
                sent.append(w)
            p = np.mean(sent, axis=0) + error
            m = downlink(p, r)
            error = (p - m) * feedback
        x = x - lr(r) * m / (np.sqrt(v) + eps)
        yield x, {"m": m, "v": v, "e": e, "error": error}


def birder(x, gradient, n, compress, downlink, lr, cohort, beta):
    m, b = np.zeros((n, x.size)), np.zeros((n, x.size))
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            g = gradient(i, x, r)
            m[i] = beta * m[i] + (1 - beta) * g
            b[i] = beta * b[i] + (1 - beta) * np.abs(g)
            sent.append(compress(m[i] / b[i], i, r))
        x = x - lr(r) * downlink(np.mean(sent, axis=0), r)
        yield x, {"m": m, "b": b}


def amsgrad(x, gradient, lr, beta1, beta2, eps):
    """Without bias correction, eps inside the square root."""
    m, v, w = (np.zeros_like(x) for _ in range(3))
    r = 0
    while True:
        r += 1
        g = gradient(x, r)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = np.maximum(w, v)
        x = x - lr(r) * m / np.sqrt(w + eps)
        yield x, {"m": m, "v": v, "w": w}


def cdadam(x, gradient, n, compress, downlink, lr, cohort, beta1, beta2, eps):
    h = np.zeros((n, x.size))
    known, m, v, w = (np.zeros_like(x) for _ in range(4))
    r = 0
    while True:
        r += 1
        for i in cohort(r):
            h[i] = h[i] + compress(gradient(i, x, r) - h[i], i, r)
        known = known + downlink(h.mean(axis=0) - known, r)  # over all n
        m = beta1 * m + (1 - beta1) * known
        v = beta2 * v + (1 - beta2) * known**2
        w = np.maximum(w, v)
        x = x - lr(r) * m / np.sqrt(w + eps)
        yield x, {"h": h, "g": known}


def comp_ams(x, gradient, n, compress, lr, cohort, beta1, beta2, eps, feedback=True):
    e = np.zeros((n, x.size))
    m, v, w = (np.zeros_like(x) for _ in range(3))
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            p = gradient(i, x, r) + e[i]
            q = compress(p, i, r)
            e[i] = (p - q) * feedback
            sent.append(q)
        g = np.mean(sent, axis=0)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = np.maximum(w, v)
        x = x - lr(r) * m / np.sqrt(w + eps)
        yield x, {"e": e}


def fedcams(x, local, n, compress, lr, cohort, beta1, beta2, eps, feedback=True):
    """`local(i, x, r)` is worker i's model after its K local steps from x in round r."""
    e = np.zeros((n, x.size))
    m, v, w = np.zeros_like(x), np.zeros_like(x), np.full_like(x, eps)
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            change = local(i, x, r) - x
            q = compress(change + e[i], i, r)
            e[i] = (change + e[i] - q) * feedback
            sent.append(q)
        d = np.mean(sent, axis=0)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        w = np.maximum(w, v)
        x = x + lr(r) * m / np.sqrt(w)
        yield x, {"e": e}
