"""The Flower App without Flower's processes: run config, ServerApp and ClientApp in this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, RecordDict
from safetensors.numpy import load_file

from flowerpress.server.errors import FailedRunError
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.flower_app import client_app, digest, server_app
from flowerpress.simulations.reading import read_runs
from flowerpress.simulations.run_config import (
    RUN_KEYS,
    TASK_KEYS,
    schedule,
    strategy_choice,
    task_choice,
)
from flowerpress.simulations.tasks import _TASKS, make_task_fn, task_names
from flowerpress.strategies import make_strategy, strategy_names, strategy_options
from tests.algorithms.lives import kill

pytest.importorskip("sklearn")  # the task digits

ROOT = Path(__file__).resolve().parents[2]
APP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
CONFIG: dict[str, Any] = APP["config"]
IN_PYTHON_ONLY = {  # keys of Flower's records and functions: no words of a run config
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
    "train_metrics_aggr_fn",
    "evaluate_metrics_aggr_fn",
}


def run_app(config: dict[str, Any], clients: int = 3, **node_configs: Any) -> None:
    with InProcessGrid(
        lambda: client_app, clients, run_config=config, node_configs=node_configs.get("nodes")
    ) as grid:
        server_app(grid, Context(grid.run_id, 1, {}, RecordDict(), config))


def test_run_config_has_a_key_for_every_option() -> None:
    options = {name for strategy in strategy_names() for name in strategy_options(strategy)}
    wanted = {name.replace("_", "-") for name in options - IN_PYTHON_ONLY}
    assert wanted - {"seed"} == set(CONFIG) - {*RUN_KEYS, *TASK_KEYS}


def test_run_config_has_a_key_for_every_task_option() -> None:
    modules = [name.replace("-", "_") for name in task_names()]
    tasks = [import_module(f"flowerpress.simulations.tasks.{module}") for module in modules]
    options = {
        key
        for name, task in zip(task_names(), tasks, strict=True)
        for key in getattr(task, _TASKS[name]).options
    }
    assert {key.replace("_", "-") for key in options} | {"partition"} == set(TASK_KEYS)
    assert set(TASK_KEYS) | set(RUN_KEYS) <= set(CONFIG)


def test_app_is_what_is_shipped() -> None:
    assert APP["components"] == {
        "serverapp": "flowerpress.simulations.flower_app:server_app",
        "clientapp": "flowerpress.simulations.flower_app:client_app",
    }
    for pattern in APP["fab-include"]:  # Flower refuses a pattern that matches nothing
        assert any(ROOT.glob(pattern)), pattern


@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_is_named_by_one_key(strategy: str) -> None:
    name, options = strategy_choice({**CONFIG, "strategy": strategy})
    assert make_strategy(name, **options).name == strategy


def test_option_of_another_strategy_is_refused() -> None:
    name, options = strategy_choice({**CONFIG, "strategy": "ef14", "momentum": 0.5})
    with pytest.raises(ValueError, match=r"ef14 has no option 'momentum': it has .*compressor"):
        make_strategy(name, **options)


def test_option_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'digits' has no option 'path'.*backend"):
        run_app({**CONFIG, "path": "a9a"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num-server-rounds", 0, "num-server-rounds is 0: expected at least 1"),
        ("num-server-rounds", 2.5, "num-server-rounds is 2.5: expected a whole number"),
        ("round-timeout", 0, "round-timeout is 0: expected a number of seconds above 0"),
        ("round-timeout", "long", "round-timeout is 'long': expected a number"),
        ("out", 1, "out is 1: expected a text"),
        ("checkpoint", 1, "checkpoint is 1: expected a text"),
        ("checkpoint-every", 0.5, "checkpoint-every is 0.5: expected a whole number"),
        ("resume", True, "resume is True: expected false, or true where checkpoint is given"),
    ],
)
def test_bad_schedule_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule({**CONFIG, key: value})


def test_missing_key_says_where_it_belongs() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "seed"}
    with pytest.raises(ValueError, match=r"no 'seed'.*\[tool.flwr.app.config\]"):
        task_choice(config)


def test_node_says_how_it_computes_but_not_what() -> None:
    node = {"backend": "torch", "partition": "contiguous", "task": "mnist", "seed": 3}
    choice = task_choice({**CONFIG, "backend": "numpy"}, node)
    assert choice == ("digits", 0, (("backend", "torch"),))


def test_app_gives_the_trajectory_of_simulate(tmp_path: Path) -> None:
    nodes = {0: {"compressor": "topk:0.02"}, 1: {"compressor": "qsgd:7"}}
    config = {**CONFIG, "num-server-rounds": 4, "seed": 5, "lr": 0.5, "compressor": "topk:0.1"}
    run_app({**config, "partition": "contiguous", "out": str(tmp_path)}, nodes=nodes)

    task_fn = make_task_fn("digits", partition="contiguous", seed=5)
    strategy = make_strategy("ef21-sgdm", compressor="topk:0.1", lr=0.5)
    expected = simulate(
        strategy, task_fn, 3, 4, 5, evaluate_fn=task_fn.evaluate_fn, node_configs=nodes
    )
    (folder,) = tmp_path.iterdir()
    model = load_file(folder / "model.safetensors")
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(model[name], array.numpy())
    run = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert run["up_bytes"] == expected.ledger.up_bytes
    assert run["final"] == expected.history[-1].metrics
    assert run["config"]["clients"] == 3
    rows = json.loads((folder / "ledger.json").read_text("utf-8"))
    assert sum(r["payload"] + r["framing"] for r in rows) == (
        expected.ledger.up_bytes + expected.ledger.down_bytes
    )


def test_app_goes_on_under_another_run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started again gets another run from Flower; clients find their memory."""
    config = {**CONFIG, "num-server-rounds": 5, "seed": 5, "lr": 0.5, "strategy": "ef21"}
    config |= {"min-available-nodes": 3, "min-train-nodes": 3}
    disk = {"state-store": "disk", "state-dir": str(tmp_path / "clients")}
    nodes = dict.fromkeys(range(3), disk)
    run_app({**config, "out": str(tmp_path / "whole")})

    saved = config | {"checkpoint": str(tmp_path / "saved"), "out": str(tmp_path / "resumed")}
    kill(monkeypatch, 11, lambda: run_app(saved, nodes=nodes))
    (folder,) = (tmp_path / "clients").iterdir()
    assert folder.name.endswith("-saved")
    with pytest.raises(ValueError, match="holds a run up to round 2: resume it"):
        run_app(saved, nodes=nodes)
    run_app({**saved, "resume": True}, nodes=nodes)
    # The life that was killed has kept what it had until then.
    killed, resumed = sorted((tmp_path / "resumed").iterdir())
    assert json.loads((killed / "results.json").read_text("utf-8"))["runs"][0]["rounds"] == 2
    found = [next((tmp_path / "whole").iterdir()), resumed]
    for name in ("model.safetensors", "ledger.json"):
        assert len({(path / name).read_bytes() for path in found}) == 1, name


def test_app_that_diverges_says_so_and_keeps_its_results(tmp_path: Path) -> None:
    config = {**CONFIG, "num-server-rounds": 2, "strategy": "ef21", "lr": 1e30}
    with pytest.raises(FailedRunError, match=r"diverged: the held-out loss went from 2.303 to"):
        run_app({**config, "out": str(tmp_path)})
    (folder,) = tmp_path.iterdir()
    run = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert (run["status"], run["rounds"]) == ("diverged", 2)
    assert (folder / "model.safetensors").exists()


def test_app_that_is_stopped_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowerpress.simulations.tasks.digits import DigitsTaskFn

    evaluate = DigitsTaskFn.evaluate_fn

    def stopped(self: Any, server_round: int, arrays: ArrayRecord) -> Any:
        if server_round == 2:
            raise KeyboardInterrupt
        return evaluate(self, server_round, arrays)

    monkeypatch.setattr(DigitsTaskFn, "evaluate_fn", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_app({**CONFIG, "num-server-rounds": 9, "out": str(tmp_path)})
    (folder,) = tmp_path.iterdir()
    run = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert (run["status"], run["rounds"], run["config"]["clients"]) == ("interrupted", 1, 3)
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "ledger.json",
        "model.safetensors",
        "plot.png",
    }


def test_app_finds_a_place_that_cannot_be_written_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"results cannot be kept in .*file/out: Not a directory"):
        run_app({**CONFIG, "out": str(tmp_path / "file" / "out")})


def test_app_has_the_clients_evaluation_in_its_results(tmp_path: Path) -> None:
    run_app({**CONFIG, "num-server-rounds": 1, "fraction-evaluate": 1.0, "out": str(tmp_path)})
    (folder,) = tmp_path.iterdir()
    run = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]
    assert 0 < run["final_evaluate"]["accuracy"] < 1
    assert run["history"][1]["evaluate"] == run["final_evaluate"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("num-server-round", "num-server-rounds"), ("LR", "lr"), ("batchsize", "batch-size")],
)
def test_a_key_that_nothing_knows_is_refused(key: str, meant: str) -> None:
    with pytest.raises(
        ValueError, match=f"no run has a key '{key}': did you mean '{meant}'"
    ) as caught:
        strategy_choice({**CONFIG, key: 3})
    assert len(str(caught.value)) < 150, "not all keys beside what was meant"


def test_client_that_cannot_compute_says_so_to_the_server() -> None:
    with pytest.raises(RuntimeError, match=r"expected one of numpy, torch, not 'abacus'"):
        run_app({**CONFIG, "num-server-rounds": 1}, 2, nodes={1: {"backend": "abacus"}})


def test_digest_tells_models_apart() -> None:
    one, same, other = (ArrayRecord([np.full(3, value)]) for value in (1.0, 1.0, 2.0))
    assert digest(one) == digest(same)
    assert digest(one) != digest(other)


def test_client_of_a_numpy_task_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys; from flowerpress.simulations import flower_app as app;"
        "app._task_fn(app.TaskChoice('digits', 0, (('backend', 'numpy'),)))(0, 2);"
        "print(*{'torch', 'ray', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("task", ["quadratic", "breast-cancer"])
def test_steps_by_theory_are_those_of_a_run_in_process(task: str, tmp_path: Path) -> None:
    config = {**CONFIG, "task": task, "strategy": "ef21", "lr": "theory", "num-server-rounds": 2}
    config["min-available-nodes"] = 3  # of so many shards are the constants
    run_app({**config, "out": str(tmp_path)})
    (folder,) = tmp_path.iterdir()
    (app,) = read_runs(folder)
    options = {"lr": "theory"}
    alone = Experiment(
        task=task,
        strategy="ef21",
        clients=3,
        rounds=2,
        seed=app.experiment.seed,
        compressor=app.experiment.compressor,
        strategy_options=options,
    ).prepare()
    history = alone.simulate().history
    assert [r.metrics for r in app.history] == [r.metrics for r in history]
