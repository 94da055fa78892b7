"""MARINA's family, DIANA and DASHA, one loop each, everybody's state in one place.

A round takes x^{r-1} to x^r. `full(i, x)` is worker i's gradient on all its data, `batch(i, x, r)`
that on round r's batch. `compress(v, i, r)` is worker i's compressor in round r; `coin(r)` is true
for whole gradients; `cohort(r)` are the workers asked.
"""

import numpy as np


def marina(x, full, n, compress, lr, coin, batch=None, cohort=None):
    """MARINA; VR-MARINA with `batch`; PP-MARINA with `cohort`."""
    g = previous = None
    r = 0
    while True:
        r += 1
        if g is None or coin(r):
            g = np.mean([full(i, x) for i in range(n)], axis=0)
        else:
            changes = []
            for i in range(n) if cohort is None else cohort(r):
                if batch is None:
                    difference = full(i, x) - full(i, previous)
                else:
                    difference = batch(i, x, r) - batch(i, previous, r)
                changes.append(compress(difference, i, r))
            g = g + np.mean(changes, axis=0)
        previous, x = x, x - lr * g
        yield x, {"g": g}


def diana(x, full, n, compress, lr, omega, cohort):
    h = np.zeros((n, x.size))
    r = 0
    while True:
        r += 1
        mean_h = h.mean(axis=0)
        sent = []
        for i in cohort(r):
            m = compress(full(i, x) - h[i], i, r)
            h[i] = h[i] + m / (1 + omega)
            sent.append(m)
        x = x - lr * (mean_h + np.mean(sent, axis=0))
        yield x, {"h": h}


def dasha(x, full, n, compress, lr, omega, cohort):
    g, h = np.zeros((n, x.size)), np.zeros((n, x.size))
    met = set()
    a = 1 / (2 * omega + 1)
    r = 0
    while True:
        r += 1
        for i in cohort(r):
            new = full(i, x)
            if i in met:
                g[i] = g[i] + compress(new - h[i] - a * (g[i] - h[i]), i, r)
            else:
                g[i] = new
                met.add(i)
            h[i] = new
        x = x - lr * g.mean(axis=0)
        yield x, {"g": g, "h": h}
