"""A server that is killed and started again goes on as if it had never stopped."""

import pytest

from flowerpress.strategies import strategy_names
from tests.algorithms.lives import assert_same, killed_at, whole_run

VARIANTS = {
    "everyone": {},
    "evaluated": {"fraction_evaluate": 1.0},
    "sampled": {"fraction_train": 0.67, "min_train_nodes": 1},
}


def middles(ends):
    """Messages within the first round, and the last messages of others, twice of one."""
    return [ends[1] - 1, ends[2] - 1, ends[2], ends[3], ends[3], ends[4] - 2]


@pytest.mark.parametrize("name", strategy_names())
def test_killed_in_the_middle_of_rounds(name, tmp_path, monkeypatch):
    whole, ends = whole_run(monkeypatch, name)
    assert_same(killed_at(monkeypatch, name, tmp_path, middles(ends), ends), whole)


# Gossip asks everyone, and so does MARINA.
EVERYONE = {"choco-sgd", "d-psgd", "squarm-sgd", "marina", "vr-marina"}
CASES = [
    (name, variant)
    for name in strategy_names()
    for variant in VARIANTS
    if variant != "sampled" or name not in EVERYONE
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_killed_after_any_message(name, variant, tmp_path, monkeypatch):
    whole, ends = whole_run(monkeypatch, name, options=VARIANTS[variant])
    for position in range(1, ends[-1] + 1):
        folder = tmp_path / str(position)
        result = killed_at(monkeypatch, name, folder, [position], ends, options=VARIANTS[variant])
        assert_same(result, whole)
