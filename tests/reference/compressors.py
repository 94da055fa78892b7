"""Compressors as formulas: vectors in, dense vectors out."""

import numpy as np


def identity(x):
    return x.copy()


def topk(k):
    def compress(x):
        out = np.zeros_like(x)
        kept = np.argsort(-np.abs(x), kind="stable")[:k]  # ties to the lowest index
        out[kept] = x[kept]
        return out

    return compress


def sign(x):
    """(|x|_1 / d) sign(x), with sign(0) = +1: there is no zero on the wire."""
    return np.abs(x).mean() * np.where(x < 0, -1.0, 1.0)


def sign_l2(x):
    """(|x|_2 / sqrt(d)) sign(x), with sign(0) = +1."""
    return np.sqrt(np.mean(x**2)) * np.where(x < 0, -1.0, 1.0)


def loggrid(k):
    """The nearest of 0 and +-M 2**-j, j < k, with M the largest magnitude."""

    def compress(x):
        points = np.concatenate([-(2.0 ** -np.arange(k)), [0.0], 2.0 ** -np.arange(k)])
        largest = np.abs(x).max()
        return largest * points[np.abs(x[:, None] / largest - points).argmin(axis=1)]

    return compress


def signtopk(k):
    def compress(x):
        kept = np.sort(np.argsort(-np.abs(x), kind="stable")[:k])
        out = np.zeros_like(x)
        out[kept] = np.abs(x[kept]).mean() * np.where(x[kept] >= 0, 1.0, -1.0)
        return out

    return compress
