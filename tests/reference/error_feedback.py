"""EF14, EF21 and their variants, one loop each, everybody's state in one place.

A round takes x^{r-1} to x^r. `gradient(i, x, r)` is worker i's (stochastic) gradient in round r;
`cohort(r)` the workers that take part; `lr` the step size, or that of round r as `lr(r)`. Without
`feedback` all errors stay 0. Each yields (x, {name: state}) after every round.
"""

import numpy as np


def rate(lr, r):
    return lr(r) if callable(lr) else lr


def dsgd(x, gradient, n, compress, lr, cohort):
    r = 0
    while True:
        r += 1
        x = x - rate(lr, r) * np.mean([compress(gradient(i, x, r)) for i in cohort(r)], axis=0)
        yield x, {}


def ef14(x, gradient, n, compress, lr, cohort, feedback=True):
    e = np.zeros((n, x.size))
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            p = e[i] + rate(lr, r) * gradient(i, x, r)
            w = compress(p)
            e[i] = (p - w) * feedback
            sent.append(w)
        x = x - np.mean(sent, axis=0)
        yield x, {"e": e}


def ef14_two_way(x, gradient, n, compress, lr, cohort, downlink, feedback=True):
    e, e_server = np.zeros((n, x.size)), np.zeros_like(x)
    r = 0
    while True:
        r += 1
        sent = []
        for i in cohort(r):
            p = e[i] + rate(lr, r) * gradient(i, x, r)
            w = compress(p)
            e[i] = (p - w) * feedback
            sent.append(w)
        p = np.mean(sent, axis=0) + e_server
        delta = downlink(p)
        e_server = (p - delta) * feedback
        x = x - delta
        yield x, {"e": e, "e_server": e_server}


def ef21(x, gradient, n, compress, lr, cohort, momentum=1.0, double=False, dense_init=True):
    """EF21 (momentum=1), EF21-SGDM, EF21-SGD2M (double); EF21-PP where the cohort is not all."""
    g, v, u = (np.zeros((n, x.size)) for _ in range(3))
    met = set()
    r = 0
    while True:
        r += 1
        for i in cohort(r):
            new = gradient(i, x, r)
            if i not in met:
                v[i] = u[i] = new
                g[i] = new if dense_init else compress(new)
                met.add(i)
                continue
            v[i] = (1 - momentum) * v[i] + momentum * new
            u[i] = (1 - momentum) * u[i] + momentum * v[i]
            g[i] = g[i] + compress((u[i] if double else v[i]) - g[i])
        x = x - rate(lr, r) * g.mean(axis=0)  # over all n: absent workers' g_i count
        yield x, {"g": g}


def ef21_bc(x, gradient, n, compress, lr, cohort, downlink):
    g, h = np.zeros((n, x.size)), np.zeros_like(x)
    met = set()
    r = 0
    while True:
        r += 1
        for i in cohort(r):
            new = gradient(i, x, r)
            g[i] = g[i] + compress(new - g[i]) if i in met else new
            met.add(i)
        # The first estimate is known to all (the authors' start); then differences to it.
        h = h + (downlink(g.mean(axis=0) - h) if r > 1 else g.mean(axis=0))
        x = x - rate(lr, r) * h
        yield x, {"g": g, "h": h}
