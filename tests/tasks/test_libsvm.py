from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.simulations.tasks import make_task_fn
from flowerpress.simulations.tasks.libsvm import LogisticTask
from flowerpress.simulations.tasks.libsvm_file import read_libsvm

from .checks import check_contract, check_gradient, start

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((23, 4))
SIGNS = np.where(RNG.random(23) < 0.5, -1.0, 1.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.libsvm"
    rows = (
        f"{int(sign)} " + " ".join(f"{k + 1}:{float(v)!r}" for k, v in enumerate(row))
        for sign, row in zip(SIGNS, FEATURES, strict=True)
    )
    path.write_text("\n".join(rows) + "\n")
    return path


def write(tmp_path, text):
    path = tmp_path / "bad.libsvm"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- the file ---


def test_reads_what_was_written(file):
    features, labels = read_libsvm(file)
    assert np.array_equal(features, FEATURES)
    assert np.array_equal(labels, SIGNS)


def test_reads_gzip_whatever_its_name(file, tmp_path):
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert np.array_equal(read_libsvm(packed)[0], FEATURES)


def test_reads_scikit_learns_files(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    path = tmp_path / "dumped"
    datasets.dump_svmlight_file(FEATURES, SIGNS, str(path), zero_based=False, comment="a file")
    np.testing.assert_allclose(read_libsvm(path)[0], FEATURES, rtol=1e-14)


def test_skips_comments_and_empty_lines_and_keeps_empty_rows(tmp_path):
    features, labels = read_libsvm(write(tmp_path, "# header\n\n1\n-1 2:3 # why\n"))
    assert features.tolist() == [[0, 0], [0, 3]]
    assert labels.tolist() == [1, -1]


def test_dim_widens_the_matrix(file):
    assert read_libsvm(file, dim=9)[0].shape == (23, 9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x 1:1", "label is 'x', not a finite number"),
        ("nan 1:1", "label is 'nan'"),
        ("1_0 1:1", "label is '1_0'"),
        ("1 0:1", "index 0 is out of range; indices start at 1"),
        ("1 -1:1", "expected index:value with a whole index, not '-1:1'"),
        ("1 1.5:1", "not '1.5:1'"),
        ("1 \u0661:1".encode(), "not ASCII"),
        ("1 2:1 1:1", "index 1 comes after 2; indices must ascend"),
        ("1 2:1 2:1", "index 2 comes after 2"),
        ("1 2", "not '2'"),
        ("1 2:", "value of index 2 is ''"),
        ("1 2:inf", "value of index 2 is 'inf'"),
        ("1 2:1e999", "value of index 2 is '1e999'"),
        ("1 2:1:1", "value of index 2 is '1:1'"),
        ("1 qid:3 1:1", "not 'qid:3'"),
        ("1 " + "9" * 30 + ":1", "is out of range"),
        (b"1 1:\xff", "not ASCII"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, b"1 1:1\n" + line + b"\n")
    with pytest.raises(ValueError, match=message) as caught:
        read_libsvm(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [  # no time in gzipped data: tests must have the same names in all processes of pytest-xdist
        (b"", "holds no example"),
        (b"# nothing\n", "holds no example"),
        (b"1\n-1\n", "holds no feature"),
        (b"1 99999999999:1\n", "GiB as a dense matrix; at most 4 GiB"),
        (gzip.compress(b"1 1:1\n" * 99, mtime=0)[:-9], "broken gzip data"),
        (b"\x1f\x8b no gzip", "broken gzip data"),
        (gzip.compress(b"1 1:1\n", mtime=0)[:12] + b"\xff" * 9, "broken gzip data"),
    ],
)
def test_a_broken_file_is_named(tmp_path, data, message):
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as caught:
        read_libsvm(path)
    assert str(path) in str(caught.value)


def test_an_index_above_dim_is_refused(file):
    with pytest.raises(ValueError, match="line 1: index 4 is above the 3 features asked for"):
        read_libsvm(file, dim=3)


def test_no_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*give the path of a LIBSVM text file"):
        read_libsvm(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a directory"):
        read_libsvm(tmp_path)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_data_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    try:
        features, labels = read_libsvm(path, dim=50)
    except ValueError as error:
        message = str(error)
    else:
        message = f"{path} was read"
        assert features.shape == (len(labels), 50)
    assert str(path) in message


# --- the problem ---


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_gradient_against_finite_differences(lam):
    task = LogisticTask(FEATURES, SIGNS, lam)
    x = np.random.default_rng(2).standard_normal(4)
    check_gradient(task, x, None, step=1e-5, rtol=1e-8)
    check_gradient(task, x, np.array([3, 5, 8]), step=1e-5, rtol=1e-8)


def test_contract():
    check_contract(LogisticTask(FEATURES, SIGNS))
    check_contract(LogisticTask(FEATURES, SIGNS, batch_size=5))


def test_loss_is_the_formula():
    x = np.array([0.5, -1.0, 2.0, 0.0])
    terms = [np.log(1 + np.exp(-b * (a @ x))) for a, b in zip(FEATURES, SIGNS, strict=True)]
    regularizer = 0.1 * sum(v**2 / (1 + v**2) for v in x)
    assert LogisticTask(FEATURES, SIGNS).gradient(x, None)[0] == pytest.approx(
        np.mean(terms) + regularizer, rel=1e-14
    )


def test_huge_margins_do_not_overflow():
    task = LogisticTask(np.array([[1.0], [1.0]]), np.array([1.0, -1.0]), lam=0)
    loss, gradient = task.gradient(np.array([5000.0]), None)
    assert loss == 2500
    assert gradient.tolist() == [0.5]


def test_smoothness_bounds_the_gradient():
    task = LogisticTask(FEATURES, SIGNS)
    bound = task.smoothness()
    expected = np.linalg.eigvalsh(FEATURES.T @ FEATURES)[-1] / (4 * 23) + 0.2
    assert bound == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(200):
        x, y = 0.1 * rng.standard_normal((2, 4))
        change = np.linalg.norm(task.gradient(x, None)[1] - task.gradient(y, None)[1])
        worst = max(worst, change / np.linalg.norm(x - y))
    assert 0.5 * bound < worst <= bound


# --- the task function ---


def test_equal_shards_in_order_drop_the_rest(file):
    fn = make_task_fn("libsvm", path=file, partition="contiguous", equal_shards=5)
    tasks = [fn(client, 5) for client in range(5)]
    assert [task.num_examples for task in tasks] == [4] * 5
    x = np.ones(4)
    expected = LogisticTask(FEATURES[4:8], SIGNS[4:8]).gradient(x, None)[1]
    assert np.array_equal(tasks[1].gradient(x, None)[1], expected)
    # What the server measures is the mean of the clients' problems, so its gradient reaches zero.
    mean = np.mean([task.gradient(x, None)[1] for task in tasks], axis=0)
    measured = fn.held_out().evaluate(x)["gradient_norm_sq"]
    assert measured == pytest.approx(mean @ mean, rel=1e-12)


def test_smoothness_of_the_clients(file):
    fn = make_task_fn("libsvm", path=file, partition="contiguous")
    constants = fn.smoothness(3)
    assert constants[0] == pytest.approx(LogisticTask(FEATURES[:8], SIGNS[:8]).smoothness())
    assert fn.smoothness()[0] == pytest.approx(LogisticTask(FEATURES, SIGNS).smoothness())


def test_initial_model_is_zero_or_normal_by_the_seed(file):
    zeros = make_task_fn("libsvm", path=file)
    assert start(zeros(0, 2)).tolist() == [0] * 4
    normal = [make_task_fn("libsvm", path=file, x0="normal", seed=s) for s in (1, 1, 2)]
    first, same, other = (start(fn(0, 2)) for fn in normal)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.array_equal(first, start(normal[0](1, 2)))


def test_labels_become_signs_smaller_first(tmp_path):
    path = write(tmp_path, "1 1:1\n2 1:-1\n2 1:-1\n")
    fn = make_task_fn("libsvm", path=path)
    assert fn.held_out().evaluate(np.array([-1.0]))["accuracy"] == 1.0


def test_accuracy_on_a_test_file(file, tmp_path):
    test = write(tmp_path, "1 1:1\n1 2:1\n-1 1:1\n")
    fn = make_task_fn("libsvm", path=file, test_path=test)
    metrics = fn.held_out().evaluate(np.array([1.0, 1, 1, 1]))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == LogisticTask(FEATURES, SIGNS).gradient(np.ones(4), None)[0]
    with pytest.raises(ValueError, match="label 5 is none of the classes -1, 1"):
        make_task_fn("libsvm", path=file, test_path=write(tmp_path, "5 1:1\n"))


@pytest.mark.parametrize("text", ["1 1:1\n1 1:2\n", "1 1:1\n2 1:1\n3 1:1\n"])
def test_anything_but_two_classes_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="needs two classes"):
        make_task_fn("libsvm", path=write(tmp_path, text))


def test_too_few_rows_for_the_shards(file):
    with pytest.raises(ValueError, match="23 rows are too few for 24 shards"):
        make_task_fn("libsvm", path=file, equal_shards=24)


def test_the_path_is_asked_for():
    with pytest.raises(ValueError, match="needs path=FILE"):
        make_task_fn("libsvm")


@pytest.mark.skipif("FLOWERPRESS_LIBSVM_DIR" not in os.environ, reason="needs the LIBSVM sets")
@pytest.mark.parametrize(
    ("name", "rows", "features"),
    [("phishing", 11055, 68), ("mushrooms", 8124, 112), ("a9a", 32561, 123), ("w8a", 49749, 300)],
)
def test_the_sets_of_the_papers(name, rows, features):
    path = next(Path(os.environ["FLOWERPRESS_LIBSVM_DIR"]).glob(f"{name}*"))
    fn = make_task_fn("libsvm", path=path, partition="contiguous", equal_shards=20)
    tasks = [fn(client, 20) for client in range(20)]
    assert {task.num_examples for task in tasks} == {rows // 20}
    assert start(tasks[0]).shape == (features,)
    check_gradient(tasks[19], np.full(features, 0.1), None, step=1e-5, rtol=1e-7)
