"""A short run of the fuzzer; `scripts/nightly` has the long one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.fuzz import damaged, fuzz, refused, sealed, seeds
from flowerpress.compressors import Packet, make_compressor
from tests.compressors.table import COMPRESSORS


def test_no_decoder_does_anything_but_decode_or_refuse():
    verdicts: Counter[bool] = Counter()
    for seed in range(10):  # more than one where the machine is busy
        verdicts.update(verdict for _, verdict in fuzz(COMPRESSORS, seconds=6, seed=seed))
        if verdicts[True] > 100:
            break
    # Both happen: the damage is neither always noticed by the frame nor always harmless.
    assert verdicts[True] > 100
    assert verdicts[False] > 10


@pytest.mark.slow
def test_ten_minutes():
    verdicts = Counter(verdict for _, verdict in fuzz(COMPRESSORS, seconds=600, seed=1))
    assert verdicts[True] > 10_000


def test_right_packets_are_accepted():
    for packets in seeds(("topk:0.1+qsgd:7", "scaled(randk:0.1)")).values():
        for data in packets:
            assert sealed(data) == data
            if Packet(data).dim <= 20_000:
                assert not refused(data)


def test_the_frames_inside_are_sealed_too():
    data = make_compressor("hadamard+sign").compress(np.ones(9, dtype=np.float32)).data
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    assert refused(wrong)
    assert not refused(sealed(wrong))


def test_damage_is_damage():
    data = make_compressor("qsgd").compress(np.ones(99, dtype=np.float32)).data
    rng = np.random.default_rng(0)
    assert len({damaged(data, [data], rng) for _ in range(100)}) > 60
