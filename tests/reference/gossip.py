"""SQuARM-SGD as in the paper: every node holds a copy of every neighbour's public model.

`W` is the whole matrix of weights; `gradient(i, x, t, h)` worker i's gradient in local step h of
synchronisation t; `c(t)` the trigger. CHOCO-SGD is H = 1, momentum 0, c negative; plain
decentralized SGD besides the identity and gamma 1. Yields all models, public copies, and who sent.
"""

import numpy as np


def squarm(X, gradient, W, compress, lr, momentum, H, gamma, c, zero_copies=False):
    n = len(X)
    X, V = X.copy(), np.zeros_like(X)
    copies = np.zeros_like(X) if zero_copies else X.copy()
    copies = np.array([copies] * n)  # copies[i, j]: what node i holds of node j
    t = 0
    while True:
        t += 1
        sent = np.zeros(n, bool)
        packets = np.zeros_like(X)
        for i in range(n):
            for h in range(H):
                g = gradient(i, X[i], t, h)
                V[i] = momentum * V[i] + g
                X[i] = X[i] - lr * (momentum * V[i] + g)
            away = X[i] - copies[i, i]
            if away @ away > c(t) * lr**2:
                packets[i], sent[i] = compress(away), True
        for i in range(n):
            for j in range(n):
                if i == j or W[i, j]:
                    copies[i, j] = copies[i, j] + packets[j]
        pull = [sum(W[i, j] * (copies[i, j] - copies[i, i]) for j in range(n)) for i in range(n)]
        X = X + gamma * np.array(pull)
        yield X.copy(), np.array([copies[i, i] for i in range(n)]), sent


def local_sgd_with_averaging(x, gradient, n, lr, momentum, H):
    """H steps of Nesterov's SGD on each of n workers, then the mean of the models for all."""
    V = np.zeros((n, x.size))
    t = 0
    while True:
        t += 1
        models = []
        for i in range(n):
            y = x.copy()
            for h in range(H):
                g = gradient(i, y, t, h)
                V[i] = momentum * V[i] + g
                y = y - lr * (momentum * V[i] + g)
            models.append(y)
        x = np.mean(models, axis=0)
        yield x
