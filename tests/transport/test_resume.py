"""Apps of one's own that are stopped and resumed: as if never stopped, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flowerpress.cli.link import resolve
from flowerpress.cli.serve import earlier_or_new, prepare
from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import simulate
from flowerpress.strategies import CheckpointError, make_strategy, strategy_names
from flowerpress.transport import Service
from flowerpress.transport.apps import App
from flowerpress.transport.grid import Saving, SetupError
from flowerpress.transport.serve import RunFile, find_run, keep_run
from tests.algorithms.lives import OPTIONS, N, task_fn

from .linked import QUICK, run_in_thread, start_client

ROUNDS, STOP = 8, 4


class StoppedError(OSError):
    """The disk was full, say."""


class Lives:
    """An app whose server is started again and again, while its clients live on."""

    def __init__(self, folder: Path, main: Any, app: ClientApp, clients: int) -> None:
        self.folder, self.app, self.clients = folder, ServerApp(), clients
        self.app.main()(main)
        service = self.service()
        self.port, self.farewells = service.port, []
        for i in range(clients):
            config = {"state-store": "disk", "state-dir": str(folder / "state")}
            self.farewells.append(start_client(self.port, app, i, **config)[1])
        self.first = run_in_thread(lambda: service.run(self.app))

    def service(self, **options: Any) -> Service:
        bind = f"127.0.0.1:{getattr(self, 'port', 0)}"
        saving = Saving(self.folder / "checkpoints", **options)
        return Service(bind, None, self.clients, run_id=77, limits=QUICK, saving=saving)

    def again(self, **options: Any) -> dict[str, Any]:
        """Start the server once more."""
        service = self.service(resume=True, **options)
        return run_in_thread(lambda: service.run(self.app)).result(60)

    def end(self) -> None:
        for farewell in self.farewells:
            assert farewell.result(30).done


def stop_once(at: int, notes: list[int]) -> Any:
    """Return an evaluation that stops the server after a round, the first time."""

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        notes.append(server_round)
        if server_round == at and notes.count(at) == 1:
            raise StoppedError(28, "No space left on device")
        return MetricRecord({"norm": float(np.linalg.norm(next(iter(arrays.values())).numpy()))})

    return evaluate


SOME = ("ef14", "ef21-sgdm", "marina", "onebit-adam", "sketched-sgd", "squarm-sgd")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SOME else pytest.mark.slow) for n in strategy_names()]
)
def test_a_strategy_that_says_nothing_of_checkpoints_is_resumed(name: str, tmp_path: Path) -> None:
    """The model, the bytes and the metrics are those of a run that never stopped."""
    everyone = {"min_available_nodes": N, "min_train_nodes": N}

    def strategy() -> Any:
        return make_strategy(name, **{**OPTIONS.get(name, {}), **everyone})

    notes: list[int] = []
    ended: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        own = strategy()
        initial = task_fn(0, N).initial_arrays()
        result = own.start(grid, initial, ROUNDS, timeout=30, evaluate_fn=stop_once(STOP, notes))
        ended.append((own, result))

    lives = Lives(tmp_path, main, client_app(task_fn), N)
    with pytest.raises(StoppedError):
        lives.first.result(60)
    lives.again()
    lives.end()
    assert notes == [*range(STOP + 1), *range(STOP, ROUNDS + 1)]
    ((own, result),) = ended
    calm = simulate(strategy(), task_fn, N, ROUNDS, evaluate_fn=stop_once(-1, []))
    for key, array in result.arrays.items():
        np.testing.assert_array_equal(array.numpy(), calm.arrays[key].numpy())
    assert own.ledger.rows == calm.ledger.rows
    norms = result.evaluate_metrics_serverapp
    assert {r: norms[r]["norm"] for r in norms} == {
        record.round: record.metrics["norm"] for record in calm.history
    }


def quadratic(i: int, n: int) -> FunctionTask:
    return FunctionTask(np.zeros(20), lambda x, batch: (0.0, x - i))


def test_two_strategies_of_one_app_have_a_folder_each(tmp_path: Path) -> None:
    """A comparison: the first has ended, the second goes on."""
    notes: list[int] = []
    ended: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        initial = quadratic(0, 2).initial_arrays()
        for name, evaluate in (("fedavg", None), ("ef21", stop_once(3, notes))):
            own = make_strategy(name, lr=0.3)
            ended.append(own.start(grid, initial, 5, timeout=30, evaluate_fn=evaluate).arrays)

    lives = Lives(tmp_path, main, client_app(quadratic), 2)
    with pytest.raises(StoppedError):
        lives.first.result(60)
    lives.again()
    lives.end()
    assert sorted(path.name for path in tmp_path.glob("checkpoints*")) == [
        "checkpoints",
        "checkpoints-2",
    ]
    assert notes == [0, 1, 2, 3, 3, 4, 5]
    first, again, _ = (arrays["x"].numpy() for arrays in ended)
    np.testing.assert_array_equal(first, again)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    """And the clients wait for a server that is started with what it was started with first."""
    lr = [0.3]

    def main(grid: Grid, context: Context) -> None:
        own = make_strategy("ef21", lr=lr[0])
        own.start(grid, quadratic(0, 2).initial_arrays(), 3, timeout=30)

    lives = Lives(tmp_path, main, client_app(quadratic), 2)
    lives.first.result(60)
    lives.end()
    lr[0] = 0.5
    service = lives.service(resume=True)
    lives.farewells = [start_client(service.port, client_app(quadratic), i)[1] for i in range(2)]
    with pytest.raises(CheckpointError, match=r"lr = 0.3, this one has 0.5"):
        run_in_thread(lambda: service.run(lives.app)).result(60)
    assert not any(farewell.done() for farewell in lives.farewells)
    lr[0] = 0.3
    lives.again()
    lives.end()


def test_checkpoints_can_be_left_out(tmp_path: Path) -> None:
    def main(grid: Grid, context: Context) -> None:
        own = make_strategy("ef21")
        own.start(grid, quadratic(0, 2).initial_arrays(), 3, timeout=30)

    service = Service("127.0.0.1:0", None, 1, limits=QUICK, saving=Saving(tmp_path, every=0))
    app = ServerApp()

    @app.main()
    def run(grid: Grid, context: Context) -> None:
        own = make_strategy("ef21", min_available_nodes=1, min_train_nodes=1)
        own.start(grid, quadratic(0, 1).initial_arrays(), 3, timeout=30)

    _, farewell = start_client(service.port, client_app(quadratic), 0)
    service.run(app)
    assert farewell.result(30).done
    assert list(tmp_path.iterdir()) == []


# --- strategies of others -------------------------------------------------------------------------


def adder() -> ClientApp:
    """Return a ClientApp of Flower's own kind."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        x = message.content["arrays"]["x"].numpy() + 1
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord({"x": Array(x)}), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def fedavg(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_evaluate=0.0)
    strategy.start(grid, ArrayRecord({"x": Array(np.zeros(3))}), num_rounds=2)


def tolerant(grid: Grid, context: Context) -> None:
    """Go on whatever messages raise, as apps of Flower's older kind do."""
    try:
        fedavg(grid, context)
    except ValueError:
        return


@pytest.mark.parametrize("main", [fedavg, tolerant])
def test_flowers_own_strategies_are_not_resumed_in_silence(main: Any, tmp_path: Path) -> None:
    """Refused before anything is trained; the clients wait for a server that is started well."""
    notes: list[bool] = []
    saving = Saving(tmp_path / "c", resume=True, note=notes.append)
    service = Service("127.0.0.1:0", None, 2, limits=QUICK, saving=saving)
    app = ServerApp()
    app.main()(main)
    clients = [start_client(service.port, adder(), i) for i in range(2)]
    with pytest.raises(SetupError, match=r"--resume: .* none of flowerpress's.*without --resume"):
        run_in_thread(lambda: service.run(app)).result(30)
    assert notes == [False]
    assert not any(farewell.done() for _, farewell in clients)
    again = Service(f"127.0.0.1:{service.port}", None, 2, limits=QUICK, saving=Saving(tmp_path))
    run_in_thread(lambda: again.run(app)).result(30)
    assert [farewell.result(30).done for _, farewell in clients] == [True, True]


OWN = App("app.py:server_app", "app.py:client_app", {})
SAVING = App("app.py:server_app", "app.py:client_app", {"checkpoint": "", "resume": False})


def test_what_is_known_of_a_run_is_said_at_the_start(tmp_path: Path) -> None:
    """Before anybody connects: a run of which nothing was saved is not resumed."""
    keep_run(tmp_path, RunFile(5, 2, saved=False))
    with pytest.raises(ValueError, match=r"--resume: of the run in .* nothing was saved"):
        prepare(OWN, "", 2, tmp_path, 1, resume=True)
    assert prepare(SAVING, "", 2, tmp_path, 1, resume=True).run.run_id == 5
    assert prepare(OWN, "", 2, tmp_path, 1, resume=False).run.run_id != 5


def test_a_run_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "round-000003.safetensors").write_bytes(b"")
    for app in (OWN, SAVING):
        with pytest.raises(ValueError, match="holds a run: --resume goes on with it"):
            prepare(app, "", 2, tmp_path, 1, resume=False)


# --- another number of clients --------------------------------------------------------------------


def test_more_clients_than_parts_are_refused(tmp_path: Path) -> None:
    keep_run(tmp_path, RunFile(5, 2))
    with pytest.raises(ValueError, match=r"--min-clients 3: the run in .* started with 2 clients"):
        earlier_or_new(OWN, 3, tmp_path, resume=True)
    assert earlier_or_new(OWN, 3, tmp_path, resume=False).clients == 3


def test_fewer_clients_go_on_with_the_parts_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(tmp_path, RunFile(5, 3))
    assert earlier_or_new(OWN, 2, tmp_path, resume=True) == RunFile(5, 3)
    said = capsys.readouterr().err
    assert "WARNING: the run was started with 3 clients, and goes on with 2: the data stay" in said
    keep_run(tmp_path, RunFile(5, 3))
    assert earlier_or_new(OWN, 3, tmp_path, resume=True) == RunFile(5, 3)
    assert capsys.readouterr().err == ""


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They have the run's number alone."""
    (tmp_path / "run.json").write_text('{"run_id": 9}', encoding="utf-8")
    assert earlier_or_new(OWN, 4, tmp_path, resume=True) == RunFile(9, 4)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": "x"}', "\x00"])
def test_a_damaged_file_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run.json cannot be read .*remove it to begin anew"):
        find_run(tmp_path)
    assert find_run(tmp_path / "elsewhere") is None


def test_a_shipped_task_goes_on_with_fewer(tmp_path: Path) -> None:
    """Over an option that nobody gave: what `serve` sets by the number of clients."""

    def serve(clients: int, rounds: int, *, resume: bool) -> list[int]:
        config = f'strategy="ef21" num-server-rounds={rounds}'
        plan = prepare(resolve("digits"), config, clients, tmp_path, 1, resume=resume)
        plan.keep()
        assert plan.run.clients == 3
        service = plan.listen("127.0.0.1:0", None, QUICK, None)
        state = {"state-store": "disk", "state-dir": str(tmp_path / "state")}
        app, server_app = plan.app.load("client"), plan.app.load("server")
        farewells = [start_client(service.port, app, i, **state)[1] for i in range(clients)]
        report = run_in_thread(lambda: service.run(server_app)).result(60)
        assert all(farewell.result(30).done for farewell in farewells)
        return [record["round"] for record in report["rounds"]]

    assert serve(3, 3, resume=False) == [0, 1, 2, 3]
    assert serve(1, 5, resume=True) == [0, 1, 2, 3, 4, 5]
