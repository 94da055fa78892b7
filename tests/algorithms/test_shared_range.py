"""The norm that a cohort shares: told by its packets, sent with the next round's question."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, Opened, Packet, add_to, make_compressor, norm
from flowerpress.server.dispersion import Norms, Told, dispersion
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.worker.worker import Job
from tests.hostile.attacks import frame

CENTRES = np.random.default_rng(0).standard_normal((5, 40))


def task_fn(i, n):
    return FunctionTask(np.zeros(40), lambda x, _: (0.0, x - CENTRES[i]))


def ranges(monkeypatch, spec, name="dsgd", rounds=4, **options):
    """Run, and return the range of each round's question, and what workers told."""
    asked, told = {}, {}
    draw, norm = Job.draw, Opened.norm.fget

    def seen(job):
        asked[job.instruction.round] = draw(job).norm
        return draw(job)

    def heard(opened):
        found = norm(opened)
        told.setdefault(max(asked), []).append(found)
        return found

    monkeypatch.setattr(Job, "draw", seen)
    monkeypatch.setattr(Opened, "norm", property(heard))
    strategy = make_strategy(name, compressor=spec, lr=0.2, seed=1, **options)
    simulate(strategy, task_fn, 5, rounds, 1, threads=1)
    return asked, told


@pytest.mark.parametrize("spec", ["cq:range=shared", "hadamard+cq:5,range=shared,c=4+rans"])
def test_a_round_has_the_median_of_the_round_before(monkeypatch, spec):
    asked, told = ranges(monkeypatch, spec)
    assert asked[1] == 0
    for each in (2, 3, 4):
        assert asked[each] == pytest.approx(float(np.median(told[each - 1])), rel=1e-12)
        assert asked[each] > 0


def test_no_minority_sets_it(monkeypatch):
    """Two of five that tell absurd ranges move it no further than to another worker's."""
    real, count = Opened.norm.fget, [0]

    def absurd(opened):
        count[0] += 1
        return 1e30 if count[0] % 5 < 2 else real(opened)

    monkeypatch.setattr(Opened, "norm", property(absurd))
    strategy = make_strategy("dsgd", compressor="cq:range=shared", lr=0.2, seed=1)
    simulate(strategy, task_fn, 5, 5, 1, threads=1)
    assert count[0] == 25
    assert 0 < strategy.norm < 20


@pytest.mark.parametrize("spec", ["cq", "qsgd:7", "cq:range=shared,rounding=independent"])
def test_others_are_told_nothing(monkeypatch, spec):
    asked, _ = ranges(monkeypatch, spec)
    assert set(asked.values()) == {0.0}


@pytest.mark.parametrize("spec", ["cq:16,c=6", "hadamard+cq:16,c=6+rans", "cq:64,range=l2"])
@pytest.mark.parametrize("name", ["dsgd", "marina", "dasha"])
def test_the_dispersion_is_measured(spec, name):
    """In the first round: of the gradients at zero, which are the centres."""
    whole = {"p": 0.01} if name == "marina" else {}
    strategy = make_strategy(name, compressor=spec, lr=0.2, seed=1, **whole)
    outcome = simulate(strategy, task_fn, 5, 3, 1, threads=1)
    found = [record.train.get("dispersion") for record in outcome.history[1:]]
    gradients = -CENTRES
    mean = gradients.mean(axis=0)
    want = np.sqrt(((gradients - mean) ** 2).sum(axis=1).mean() / (mean**2).sum())
    if name == "dsgd":
        assert found[0] == pytest.approx(want, rel=0.3)  # rounding is known on average only
    assert all(each is not None and np.isfinite(each) for each in found[name != "dsgd" :])


def test_equal_vectors_have_no_dispersion():
    strategy = make_strategy("dsgd", compressor="cq:64,c=6", lr=0.2, seed=1)
    same = lambda i, n: FunctionTask(np.zeros(40), lambda x, _: (0.0, x - CENTRES[0]))  # noqa: E731
    outcome = simulate(strategy, same, 5, 1, 1, threads=1)
    assert outcome.history[1].train["dispersion"] < 0.1


def test_it_is_kept_with_the_run():
    strategy = make_strategy("dsgd", compressor="cq:range=shared", lr=0.2, seed=1)
    simulate(strategy, task_fn, 5, 2, 1, threads=1)
    assert strategy.state()["norm"] == strategy.norm > 0
    assert strategy.hyper()["norm"] == strategy.norm


def test_nothing_is_told_where_rounding_swamps_the_mean():
    strategy = make_strategy("dsgd", compressor="cq:3,c=16", lr=0.2, seed=1)
    outcome = simulate(strategy, task_fn, 5, 3, 1, threads=1)
    assert not any("dispersion" in record.train for record in outcome.history)


def test_nothing_is_told_where_one_packet_does_not_tell():
    """Masses of some and the sum of all would not go together."""
    norms, total = Norms(into := np.zeros(4)), np.array([4.0, 3.0, 0.0, 0.0])
    whole = make_compressor("cq:256,c=2")
    for spec in ("cq:256,c=2", "qsgd:7"):
        packet = Opened(make_compressor(spec).compress(total))
        norms.hear(1.0, 1.0, [packet], 5.0)
        into += total
    assert norms.told() == {}
    alone = Norms(into)
    for _ in range(2):
        alone.hear(1.0, 1.0, [Opened(whole.compress(total))], 5.0)
        into += total
    assert alone.told()["dispersion"] == pytest.approx(0.0, abs=1e-3)
    assert alone.median == pytest.approx(5.0)


@pytest.mark.parametrize(("n", "noise"), [(10, 0.3), (10, 1.0), (10, 2.0), (100, 1.0)])
@pytest.mark.parametrize("spec", ["hadamard+cq:5,c=5+rans", "cq:9,c=6"])
def test_the_dispersion_is_near_the_true_one(n, noise, spec):
    """Above it by what correlation saves, which is most where vectors are alike."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal(4096) + noise * rng.standard_normal((n, 4096))).astype(np.float32)
    into = np.zeros(4096, dtype=np.float32)
    norms, compressor = Norms(into), make_compressor(spec)
    for rank, row in enumerate(rows):
        packet = Opened(compressor.compress(row, Draw(rank=rank, cohort=n)))
        norms.hear(1.0, 1.0, [packet], norm(packet))
        add_to(packet, into)
    mean = rows.mean(axis=0)
    want = np.sqrt(((rows - mean) ** 2).sum(axis=1).mean() / (mean**2).sum())
    found = norms.told()["dispersion"]
    assert 0.95 * want < found < 1.15 * want + 0.1


def test_no_squares_overflow():
    absurd = struct.pack("<HHBBBBIIdd", 2, 4, 0, 0, 0, 0, 0, 0, 3.0, 1e308) + bytes(1250)
    assert Opened(Packet.parse(frame(15, 10_000, absurd, dtype=2))).norm is None
    big = np.full(50, 1e300)
    assert Opened(make_compressor("cq").compress(big)).norm == pytest.approx(1e300 * np.sqrt(50))
    assert dispersion([Told(1.0, 1e200, 1e200)] * 2, np.full(3, 1e200)) is None
