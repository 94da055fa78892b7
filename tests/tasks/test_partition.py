from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.simulations.tasks import partition as module
from flowerpress.simulations.tasks.partition import Partition, parse_partition, shards
from tests.packages import without

LABELS = np.arange(600) % 10
SPECS = ["iid", "contiguous", "dirichlet:0.5", "pathological:2"]


def split(spec, clients, seed=0, labels=LABELS):
    return shards(labels, parse_partition(spec), clients, seed)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("clients", [1, 7, 10])
def test_no_example_is_held_twice_and_no_client_is_empty(spec, clients):
    if spec.startswith(("dirichlet", "pathological")):
        pytest.importorskip("flwr_datasets")
    parts = split(spec, clients)
    joined = np.concatenate(parts)
    assert len(parts) == clients
    assert all(len(part) for part in parts)
    assert len(np.unique(joined)) == len(joined)
    if not spec.startswith("pathological"):
        assert np.array_equal(np.sort(joined), np.arange(600))


@pytest.mark.parametrize("spec", SPECS)
def test_the_seed_alone_fixes_the_shards(spec):
    if spec.startswith(("dirichlet", "pathological")):
        pytest.importorskip("flwr_datasets")
    first, again, other = (split(spec, 5, seed) for seed in (3, 3, 4))
    assert all(map(np.array_equal, first, again))
    assert all(map(np.array_equal, first, other)) == (spec == "contiguous")


def test_iid_is_flwr_datasets_partitioner_on_shuffled_data():
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    datasets = pytest.importorskip("datasets")
    partitioner = partitioners.IidPartitioner(7)
    order = np.random.default_rng(5).permutation(600)
    partitioner.dataset = datasets.Dataset.from_dict({"index": order.tolist()})
    for index, part in enumerate(split("iid", 7, seed=5)):
        assert part.tolist() == list(partitioner.load_partition(index)["index"])


def test_contiguous_keeps_the_order():
    assert [(part[0], part[-1]) for part in split("contiguous", 3)] == [
        (0, 199),
        (200, 399),
        (400, 599),
    ]


def test_dirichlet_skews_the_classes_the_more_the_smaller_alpha():
    pytest.importorskip("flwr_datasets")

    def skew(spec):
        parts = split(spec, 10)
        shares = [np.bincount(LABELS[part], minlength=10) / len(part) for part in parts]
        return float(np.mean([share.max() for share in shares]))

    assert skew("dirichlet:100") < 0.2 < skew("dirichlet:0.5") < skew("dirichlet:0.1")


def test_pathological_gives_each_client_its_number_of_classes():
    pytest.importorskip("flwr_datasets")
    assert {len(np.unique(LABELS[part])) for part in split("pathological:2", 10)} == {2}


def test_pathological_says_what_it_leaves_out(caplog):
    pytest.importorskip("flwr_datasets")
    with caplog.at_level(logging.WARNING):
        parts = split("pathological:2", 3)
    left = 600 - sum(map(len, parts))
    assert left > 0
    assert f"leaves out {left} of 600 examples" in caplog.text


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "idd",
        "iid:1",
        "dirichlet",
        "dirichlet:",
        "dirichlet:0",
        "dirichlet:-1",
        "dirichlet:nan",
        "dirichlet:inf",
        "dirichlet:x",
        "pathological:0",
        "pathological:1.5",
        "contiguous:2",
    ],
)
def test_unknown_specs_name_the_valid_ones(spec):
    with pytest.raises(ValueError, match=r"unknown partition .*valid: iid, contiguous, dirichlet"):
        parse_partition(spec)


@given(st.text())
def test_any_text_is_a_partition_or_an_error(text):
    try:
        parsed = parse_partition(text)
    except ValueError:
        return
    assert parse_partition(parsed.spec) == parsed


@pytest.mark.parametrize("clients", [0, -1, 601])
def test_more_clients_than_examples_are_refused(clients):
    with pytest.raises(ValueError, match=f"600 examples can't be split over {clients} clients"):
        split("iid", clients)


@pytest.mark.parametrize(("spec", "clients"), [("dirichlet:0.01", 300), ("pathological:11", 3)])
def test_impossible_shards_say_what_to_change(spec, clients):
    pytest.importorskip("flwr_datasets")
    with pytest.raises(ValueError, match=f"'{spec}' over {clients} clients .*take fewer clients"):
        split(spec, clients)


def test_an_empty_client_is_refused(monkeypatch):
    empty = [np.arange(3), np.arange(0)]
    monkeypatch.setattr(module, "_by_flwr_datasets", lambda *_: empty)
    with pytest.raises(ValueError, match="leaves 1 of 2 clients, the first being client 1"):
        shards(LABELS, Partition("dirichlet", 1.0), 2, 0)


def test_without_flwr_datasets_the_error_says_how_to_get_it(monkeypatch):
    without(monkeypatch, "flwr_datasets")
    assert len(split("iid", 4)) == 4
    with pytest.raises(ImportError, match="pip install flwr-datasets"):
        split("dirichlet:0.5", 4)


def test_a_package_that_is_there_and_broken_is_told_as_that(monkeypatch):
    broken = ImportError("libarrow.so: cannot open shared object file", name="pyarrow.lib")
    without(monkeypatch, "flwr_datasets", broken)
    with pytest.raises(ImportError, match=r"fails to import here: .*libarrow.* \(module 'pyarrow"):
        split("dirichlet:0.5", 4)
