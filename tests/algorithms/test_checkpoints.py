"""A server that is killed and started again goes on as if it had never stopped."""

import json
import logging
import os
from functools import partial

import numpy as np
import pytest
from flwr.app import ArrayRecord

from flowerpress.clients import client_app
from flowerpress.simulations import Faults, InProcessGrid, simulate
from flowerpress.strategies import CheckpointError, Checkpoints, strategy_names
from tests.algorithms.lives import (
    ROUNDS,
    SEED,
    N,
    assert_same,
    evaluate,
    kill,
    killed_at,
    run,
    strategy_of,
    task_fn,
    whole_run,
)
from tests.algorithms.problems import vector, worker_memory

VARIANTS = {
    "everyone": {},
    "evaluated": {"fraction_evaluate": 1.0},
    "sampled": {"fraction_train": 0.67, "min_train_nodes": 1},
}
# Gossip asks everyone, and so does MARINA.
EVERYONE = {"choco-sgd", "d-psgd", "squarm-sgd", "marina", "vr-marina"}
CASES = [
    (name, variant)
    for name in strategy_names()
    for variant in VARIANTS
    if variant != "sampled" or name not in EVERYONE
]


def middles(ends):
    """Messages within the first round, and the last messages of others, twice of one."""
    return [ends[1] - 1, ends[2] - 1, ends[2], ends[3], ends[3], ends[4] - 2]


def files(folder):
    return sorted(path.name for path in folder.glob("round-*"))


@pytest.mark.parametrize("name", strategy_names())
def test_killed_in_the_middle_of_rounds(name, tmp_path, monkeypatch):
    whole, ends = whole_run(monkeypatch, name)
    assert_same(killed_at(monkeypatch, name, tmp_path, middles(ends), ends), whole)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_killed_after_any_message(name, variant, tmp_path, monkeypatch):
    whole, ends = whole_run(monkeypatch, name, options=VARIANTS[variant])
    for position in range(1, ends[-1] + 1):
        folder = tmp_path / str(position)
        result = killed_at(monkeypatch, name, folder, [position], ends, options=VARIANTS[variant])
        assert_same(result, whole)


@pytest.mark.parametrize("variant", ["evaluated", "sampled"])
@pytest.mark.parametrize("name", ["ef21", "pp-marina", "fetchsgd", "sketched-sgd"])
def test_evaluation_and_sampling(name, variant, tmp_path, monkeypatch):
    options = VARIANTS[variant]
    whole, ends = whole_run(monkeypatch, name, options=options)
    result = killed_at(monkeypatch, name, tmp_path, middles(ends), ends, options=options)
    assert_same(result, whole)


@pytest.mark.parametrize("name", ["ef14", "ef21", "marina", "sketched-amsgrad", "squarm-sgd"])
def test_lost_messages(name, tmp_path, monkeypatch):
    faults = Faults(down=0.15, up=0.15, seed=1)
    whole, ends = whole_run(monkeypatch, name, faults=faults, rounds=8)
    positions = [ends[3], ends[5]]
    result = killed_at(monkeypatch, name, tmp_path, positions, ends, faults=faults, rounds=8)
    assert_same(result, whole)
    assert any(sum(row.round == r for row in whole.ledger.rows) < 2 * N for r in range(1, 9))


@pytest.mark.parametrize("name", ["dsgd", "ef21-sgdm", "marina", "birder", "choco-sgd"])
def test_clients_that_survive_keep_their_memory(name, tmp_path, monkeypatch):
    """Their processes live on, and know the questions that are asked again."""
    initial = task_fn(0, N).initial_arrays()

    def life(grid, folder):
        strategy = strategy_of(name, seed=3)
        strategy.checkpoints = Checkpoints(folder, resume=True)
        result = strategy.start(grid, initial, num_rounds=ROUNDS, evaluate_fn=evaluate)
        return strategy, result

    with InProcessGrid(lambda: client_app(task_fn), N) as grid:
        alone, whole = life(grid, tmp_path / "whole")
    with InProcessGrid(lambda: client_app(task_fn), N) as grid:
        for at in (3 * N, N - 1, N):
            kill(monkeypatch, at, partial(life, grid, tmp_path / "killed"))
        strategy, result = life(grid, tmp_path / "killed")
    assert strategy.ledger.rows == alone.ledger.rows
    assert vector(result.arrays).tobytes() == vector(whole.arrays).tobytes()
    assert result.train_metrics_clientapp == whole.train_metrics_clientapp
    assert result.evaluate_metrics_serverapp == whole.evaluate_metrics_serverapp
    assert list(result.train_metrics_clientapp) == list(range(1, ROUNDS + 1))


class Renumbered(InProcessGrid):
    """The same nodes under other ids, as after a restart of what connects them."""

    def __init__(self, *args, shift, **options):
        super().__init__(*args, **options)
        self._nodes = {node + shift: each for node, each in self._nodes.items()}


@pytest.mark.parametrize("name", ["ef14", "ef21", "marina", "sketched-sgd", "choco-sgd"])
def test_clients_may_come_back_as_other_nodes(name, tmp_path, monkeypatch):
    """They are greeted again, which costs bytes; their replies are the same."""
    initial = task_fn(0, N).initial_arrays()
    disk = {"state-store": "disk", "state-dir": str(tmp_path)}

    def life(shift, folder, run_id):
        strategy = strategy_of(name, seed=3, min_train_nodes=N, min_available_nodes=N)
        strategy.checkpoints = Checkpoints(folder, resume=True)
        make = partial(client_app, task_fn)
        with Renumbered(make, N, shift=shift, node_config=disk, run_id=run_id) as grid:
            result = strategy.start(grid, initial, num_rounds=ROUNDS, evaluate_fn=evaluate)
        train = [row for row in strategy.ledger.rows if row.purpose == "train"]
        return vector(result.arrays).tobytes(), [r for r in train if r.direction == "up"]

    whole = life(0, tmp_path / "whole", 1)
    ends = 8 * N if name == "sketched-sgd" else 4 * N
    for number, at in enumerate((ends, 2 * N, 2 * N - 1)):
        kill(monkeypatch, at, partial(life, 100 * number, tmp_path / "killed", 2))
    assert life(300, tmp_path / "killed", 2) == whole


@pytest.mark.parametrize("name", ["dsgd", "ef14", "ef21", "marina", "sketched-sgd", "squarm-sgd"])
def test_clients_may_be_rounds_ahead(name, tmp_path, monkeypatch, caplog):
    """The last checkpoint is some rounds old: the run recovers, and comes as near as without."""
    options = {"collect_every": 0} if name == "squarm-sgd" else {}
    life = partial(run, name, 25, options, checkpoint_every=5)
    whole, exchanges = life(), 2 if name == "sketched-sgd" else 1
    kill(monkeypatch, N + 8 * exchanges * N - 1, partial(life, checkpoint=tmp_path))
    assert files(tmp_path) == ["round-000000.safetensors", "round-000005.safetensors"]
    result = life(checkpoint=tmp_path, resume=True)
    used = [bool(record.train) for record in result.history[6:]]
    assert used.count(False) <= 3, "rounds are lost until all have a question that is new to them"
    assert ("has heard question" in caplog.text) == (name != "dsgd")
    ends = [r.history[-1].metrics["norm"] for r in (result, whole)]
    assert ends[0] == pytest.approx(ends[1], rel=0.2)


def test_a_replica_of_an_earlier_life_is_not_built_upon(tmp_path, monkeypatch, caplog):
    """The same number of a version, another model: the client is sent it whole."""
    options = {"fraction_evaluate": 1.0}
    _, ends = whole_run(monkeypatch, "ef14", options=options)
    # all have evaluated model 3, and round 3 is not saved
    kill(monkeypatch, ends[3], lambda: run("ef14", options=options, checkpoint=tmp_path))
    (lost,) = tmp_path.glob("clients/run-*/client-0.safetensors")
    lost.unlink()  # so that round 3 takes another step this time
    strategy = strategy_of("ef14", **options)
    simulate(strategy, task_fn, N, ROUNDS, SEED, evaluate, checkpoint=tmp_path, resume=True)
    assert "is not what it is on the server" in caplog.text
    for i in range(N):
        replica = worker_memory(tmp_path / "clients", i, 0, "replica.x")
        np.testing.assert_array_equal(replica, strategy.model.x)


@pytest.mark.parametrize("name", ["ef21", "squarm-sgd", "marina"])
def test_a_damaged_checkpoint_is_passed_over(name, tmp_path, monkeypatch, caplog):
    whole, ends = whole_run(monkeypatch, name)
    kill(monkeypatch, ends[3] + 1, lambda: run(name, checkpoint=tmp_path))
    assert files(tmp_path) == ["round-000002.safetensors", "round-000003.safetensors"]
    newest = tmp_path / "round-000003.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    result = run(name, checkpoint=tmp_path, resume=True)
    assert "round-000003.safetensors cannot be read (its checksum is wrong)" in caplog.text
    assert len(result.history) == ROUNDS + 1
    assert result.ledger.rows[: N * 2] == whole.ledger.rows[: N * 2]


def test_nothing_is_left_to_go_on_from(tmp_path):
    run("ef21", checkpoint=tmp_path)
    for name in files(tmp_path):
        (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* is left: .*round-000004.* cannot"
    ):
        run("ef21", checkpoint=tmp_path, resume=True)


def test_a_damaged_journal_is_found(tmp_path):
    run("ef21", checkpoint=tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"rows", b"cows", 1))
    with pytest.raises(CheckpointError, match=r"the journal beside .* is damaged"):
        run("ef21", checkpoint=tmp_path, resume=True)


IN_PLACE = {
    "folder": lambda path: path.mkdir(),
    "full folder": lambda path: (path / "inside").mkdir(parents=True),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("number", [ROUNDS - 1, ROUNDS])
def test_what_is_no_file_is_a_damaged_checkpoint(what, number, tmp_path):
    run("ef21", checkpoint=tmp_path)
    path = tmp_path / f"round-{number:06d}.safetensors"
    path.unlink()
    IN_PLACE[what](path)
    longer = run("ef21", rounds=ROUNDS + 3, checkpoint=tmp_path, resume=True)
    assert_same(longer, run("ef21", rounds=ROUNDS + 3))
    last = [f"round-{i:06d}.safetensors" for i in (ROUNDS + 2, ROUNDS + 3)]
    aside = [f"{path.name}.damaged-1"] if "folder" in what else []
    assert files(tmp_path) == [*aside, *last]


@pytest.mark.parametrize("what", IN_PLACE)
def test_a_journal_that_is_no_file_is_found(what, tmp_path):
    run("ef21", checkpoint=tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.unlink()
    IN_PLACE[what](journal)
    with pytest.raises(CheckpointError, match=r"the journal beside .* cannot be read \(it is no"):
        run("ef21", checkpoint=tmp_path, resume=True)
    for name in files(tmp_path):
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"journal.jsonl is no file: name another folder"):
        run("ef21", checkpoint=tmp_path)


@pytest.mark.parametrize("resume", [True, False])
def test_a_journal_whose_checkpoints_are_gone_is_not_written_over(resume, tmp_path):
    run("ef21", checkpoint=tmp_path)
    journal = tmp_path / "journal.jsonl"
    before = journal.read_bytes()
    for name in files(tmp_path):
        (tmp_path / name).unlink()
    says = rf"journal of a run \({ROUNDS + 1} checkpoints\), but none .* delete this one"
    with pytest.raises(CheckpointError, match=says):
        run("ef21", checkpoint=tmp_path, resume=resume)
    with pytest.raises(CheckpointError, match=says):
        Checkpoints(tmp_path).check()
    assert journal.read_bytes() == before


def test_a_process_killed_while_it_saved_the_first_starts_over(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b'{"rows": [], "beside": []}\n')
    assert_same(run("ef21", checkpoint=tmp_path, resume=True), run("ef21"))
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len(lines) == ROUNDS + 1


def test_what_a_killed_process_left_behind_is_cut_off(tmp_path, monkeypatch):
    whole, ends = whole_run(monkeypatch, "ef21")
    kill(monkeypatch, ends[3], lambda: run("ef21", checkpoint=tmp_path))
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"rows": [[3, 0, "up", 1')
    assert_same(run("ef21", checkpoint=tmp_path, resume=True), whole)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == ROUNDS + 1


def test_a_run_that_has_ended_gives_its_result_again(tmp_path):
    whole = run("ef21", checkpoint=tmp_path)

    def unused(i, n):
        task = task_fn(i, n)
        task.gradient = None  # nobody computes
        return task

    strategy = strategy_of("ef21")
    result = simulate(strategy, unused, N, ROUNDS, SEED, evaluate, checkpoint=tmp_path, resume=True)
    assert_same(result, whole)


@pytest.mark.parametrize("name", ["ef21", "onebit-adam", "sketched-sgd"])
def test_more_rounds_go_on_from_the_last(name, tmp_path):
    run(name, checkpoint=tmp_path)
    longer = run(name, rounds=ROUNDS + 3, checkpoint=tmp_path, resume=True)
    assert_same(longer, run(name, rounds=ROUNDS + 3))


def test_resume_begins_where_nothing_is(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "flowerpress"):
        result = run("ef21", checkpoint=tmp_path / "new", resume=True)
    assert "starting from the beginning" in caplog.text
    assert_same(result, run("ef21"))
    with pytest.raises(ValueError, match="resume needs the folder"):
        run("ef21", resume=True)


def test_a_folder_with_a_run_is_not_written_over(tmp_path):
    run("ef21", checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=f"up to round {ROUNDS}: resume it"):
        run("ef21", checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ef14", {}, "strategy = 'ef21', this one has 'ef14'"),
        ("ef21", {"lr": 0.5}, "lr = 0.1, this one has 0.5"),
        ("ef21", {"downlink": ""}, "downlink = 'topk:k=2', this one has ''"),
        ("ef21", {"weights": "uniform"}, "weights = 'num-examples', this one has 'uniform'"),
    ],
)
def test_another_run_is_refused(name, options, says, tmp_path):
    run("ef21", checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=says):
        run(name, options=options, checkpoint=tmp_path, resume=True)


def test_another_seed_model_or_number_of_clients_is_refused(tmp_path):
    run("ef21", checkpoint=tmp_path)
    again = {"checkpoint": tmp_path, "resume": True}

    def other(i, n):
        task = task_fn(i, n)
        task.initial_arrays = lambda: ArrayRecord([np.zeros(3), np.zeros(2)])
        return task

    with pytest.raises(CheckpointError, match="seed = 5, this one has 6"):
        simulate(strategy_of("ef21"), task_fn, N, ROUNDS, 6, **again)
    with pytest.raises(CheckpointError, match="clients = 3, this one has 4"):
        simulate(strategy_of("ef21"), task_fn, N + 1, ROUNDS, SEED, **again)
    with pytest.raises(CheckpointError, match="of another model: "):
        simulate(strategy_of("ef21"), other, N, ROUNDS, SEED, **again)


def test_what_a_server_waits_for_may_change(tmp_path):
    run("ef21", checkpoint=tmp_path, rounds=2)
    options = {"available_timeout": 5.0, "hello_timeout": 1.0, "min_available_nodes": 1}
    run("ef21", checkpoint=tmp_path, resume=True, options=options)


def test_a_step_size_set_on_the_way_is_kept(tmp_path):
    def life(rounds, folder):
        strategy = strategy_of("ef21")

        def decay(record):
            strategy.lr *= 0.5

        return simulate(
            strategy,
            task_fn,
            N,
            rounds,
            SEED,
            on_round=decay,
            checkpoint=folder,
            resume=True,
        )

    life(3, tmp_path / "two")
    result, whole = life(6, tmp_path / "two"), life(6, tmp_path / "one")
    np.testing.assert_array_equal(vector(result.arrays), vector(whole.arrays))


def test_theory_is_settled_once(tmp_path, monkeypatch):
    options = {"lr": "theory", "smoothness": 4.0, "p": 0.0}
    whole, ends = whole_run(monkeypatch, "marina", options=options)
    result = killed_at(monkeypatch, "marina", tmp_path, [ends[3]], ends, options=options)
    assert_same(result, whole)


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_every_is_a_number_of_rounds(every, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every is"):
        run("ef21", checkpoint=tmp_path, checkpoint_every=every)
