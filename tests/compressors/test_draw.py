"""Draws and the generator behind them."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Draw
from flowerpress.compressors.kernels.philox import block_keys, mix, philox4x32, words

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # the known answers published with Random123
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, answer):
    assert philox4x32(counter, key) == answer


def test_block_keys_are_philox():
    first, second = block_keys((7, ONES), 5, 3)
    for i in range(3):
        assert (first[i], second[i]) == philox4x32((5 + i, 0, 0, 0), (7, ONES))[:2]


def test_mix_by_hand():
    def by_hand(i, k0, k1):
        x = (i * 0x9E3779B9 + k0) & ONES
        x = (x ^ x >> 17) * 0xED5AD4BB & ONES
        x = ((x ^ x >> 11) + k1) * 0xAC4C1B51 & ONES
        x = (x ^ x >> 15) * 0x31848BAB & ONES
        return x ^ x >> 14

    index = np.array([0, 1, 1023], dtype=np.uint32)
    got = mix(index, np.uint32(123456789), np.uint32(4000000000))
    assert got.tolist() == [by_hand(i, 123456789, 4000000000) for i in index.tolist()]


def test_words_look_uniform():
    sample = words((1, 2), 0, 256).reshape(-1)
    bits = np.unpackbits(sample.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(sample.size)
    counts = np.bincount(sample >> np.uint32(24), minlength=256)
    chi2 = ((counts - sample.size / 256) ** 2 / (sample.size / 256)).sum()
    assert chi2 < 255 + 5 * np.sqrt(2 * 255)
    neighbours = np.corrcoef(sample[:-1], sample[1:])[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(sample.size)


def test_keys_differ_by_every_field_and_purpose():
    draws = [Draw(cohort=2), Draw(seed=1), Draw(seed=1 << 32), Draw(round=1), Draw(stream=1)]
    draws.append(Draw(rank=1, cohort=2))
    keys = [draw.key(purpose) for draw in draws for purpose in (1, 2)]
    keys += [draws[0].shared_key(1)]
    assert len(set(keys)) == len(keys)


def test_a_shared_key_is_shared():
    assert len({Draw(seed=3, rank=rank, cohort=9).shared_key(1) for rank in range(9)}) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 1 << 64}, "seed must be an integer"),
        ({"seed": 1.0}, "seed must be an integer"),
        ({"seed": True}, "seed must be an integer"),
        ({"round": 1 << 32}, "round must be an integer"),
        ({"rank": 2, "cohort": 2}, "rank 2 is not below the cohort's size 2"),
        ({"cohort": 0}, "not below"),
    ],
)
def test_out_of_range(fields, says):
    with pytest.raises(ValueError, match=says):
        Draw(**fields)
