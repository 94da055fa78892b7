"""`certs`, `serve` and `join` as a user types them, each in a process of its own."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
import pytest
import typer
from safetensors.numpy import load_file

from flowerpress.cli import main
from flowerpress.cli.commands import app
from flowerpress.cli.link import ended_threads, resolve, server_config
from flowerpress.simulations import simulate
from flowerpress.simulations.loopback import free_port
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy
from flowerpress.transport.apps import App, parse_config
from tests.cli.processes import Processes

pytest.importorskip("sklearn")  # the task digits

EF21 = 'strategy="ef21" compressor="topk:0.05" lr=0.5'


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def test_a_task_is_trained_with_certificates(run: Processes) -> None:
    assert main(["certs", str(run.folder / "certs"), "--clients", "2"]) == 0
    config = f"{EF21} num-server-rounds=8"
    words = ("--certs", "certs", "--run-config", config, "--metrics-port", 0)
    port = run.serve("digits", 2, "--bind", "127.0.0.1:0", *words)
    metrics = int(run.wait_for("serve", r"metrics on port (\d+)"))
    text = urllib.request.urlopen(f"http://localhost:{metrics}/metrics", timeout=10).read()
    assert b"flowerpress_clients_connected 0.0" in text
    for i in range(2):
        run.join("digits", port, i, "--certs", "certs")
    assert [run.ended(name) for name in ("join0", "join1", "serve")] == [0, 0, 0]
    result = run.result()
    assert result["status"] == "done"
    assert [record["round"] for record in result["rounds"]] == list(range(9))
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.5
    for record in result["rounds"][1:]:
        assert record["up_bytes"] > 0
        assert record["seconds"] > 0
    assert "2 of 2 clients" in run.log("serve") or "0 of 2 clients" in run.log("serve")
    assert "answers" in run.log("join0")
    folders = [path for path in (run.folder / "out").iterdir() if path.is_dir()]
    assert any((folder / "model.safetensors").exists() for folder in folders)


def test_a_killed_client_goes_on(run: Processes) -> None:
    config = f"{EF21} num-server-rounds=150"
    port = run.serve("digits", 2, "--bind", "127.0.0.1:0", "--insecure", "--run-config", config)
    for i in range(2):
        run.join("digits", port, i, "--insecure")
    saved = run.folder / "out" / "checkpoints"
    wait_until(lambda: any(saved.glob("round-0000[2-9]*")), run.log("serve"))
    run.all["join1"].send_signal(signal.SIGKILL)
    run.all["join1"].wait()
    run.wait_for("serve", "client 1 has gone")
    run.join("digits", port, 1, "--insecure")
    assert [run.ended(name) for name in ("join0", "join1", "serve")] == [0, 0, 0]
    result = run.result()
    assert result["clients"]["1"]["logins"] == 2
    assert len(result["rounds"]) == 151
    assert "WARNING: --insecure" in run.log("serve")


def test_a_killed_server_goes_on_as_if_nothing_had_been(run: Processes) -> None:
    """Killed twice: the model and the bytes are those of a run in one process, never stopped."""
    rounds, port = 120, free_port()
    words = ("--bind", f"127.0.0.1:{port}", "--insecure", "--resume")
    config = f"{EF21} num-server-rounds={rounds}"
    run.serve("digits", 2, *words, "--run-config", config, name="serve0")
    for i in range(2):
        run.join("digits", port, i, "--insecure")
    saved = run.folder / "out" / "checkpoints"

    def newest() -> str:
        return max((path.name for path in saved.glob("round-*")), default="")

    def later_than(before: str) -> Callable[[], bool]:
        return lambda: newest() > before

    for life in (1, 2):
        wait_until(later_than(newest()), run.log(f"serve{life - 1}"))
        time.sleep(0.3)
        run.all[f"serve{life - 1}"].kill()
        run.all[f"serve{life - 1}"].wait()
        assert f"{rounds:06d}" not in newest()  # it was killed on the way
        run.serve("digits", 2, *words, "--run-config", config, name=f"serve{life}")
    assert [run.ended(name) for name in ("serve2", "join0", "join1")] == [0, 0, 0]

    assert [record["round"] for record in run.result()["rounds"]] == list(range(rounds + 1))

    statuses = [
        json.loads(path.read_text(encoding="utf-8"))["runs"][0]["status"]
        for path in sorted(run.folder.glob("out/*/results.json"))
    ]
    assert statuses == ["interrupted", "interrupted", "done"]

    task_fn = make_task_fn("digits")
    strategy = make_strategy("ef21", compressor="topk:0.05", lr=0.5)
    calm = simulate(strategy, task_fn, 2, rounds, evaluate_fn=task_fn.evaluate_fn)
    (model,) = run.folder.glob("out/*/model.safetensors")
    for name, array in load_file(model).items():
        assert (array == calm.arrays[name].numpy()).all()
    told = json.loads((model.parent / "ledger.json").read_text(encoding="utf-8"))
    assert told == [asdict(row) for row in calm.ledger.rows]


@pytest.mark.slow
def test_a_stopped_server_lets_its_clients_wait(run: Processes, tmp_path: Path) -> None:
    """SIGTERM, as from a service manager: a result, exit code 130, and clients that come back."""
    port = free_port()
    words = ("--bind", f"127.0.0.1:{port}", "--insecure")
    config = f"{EF21} num-server-rounds=100"
    run.serve("digits", 1, *words, "--run-config", f"{config} min-train-nodes=1")
    client = run.join("digits", port, 0, "--insecure")
    saved = run.folder / "out" / "checkpoints"
    wait_until(lambda: any(saved.glob("round-0000[1-9]*")), run.log("serve"))
    run.all["serve"].send_signal(signal.SIGTERM)
    assert run.ended("serve") == 130
    assert run.result()["status"] == "failed"
    assert client.poll() is None
    number = (run.folder / "out" / "run.json").read_text(encoding="utf-8")
    # Without --resume nothing of it is touched, and it is not waited for clients to say so.
    run.start("forgot", "serve", "digits", "--min-clients", 1, "--out", "out", *words)
    assert run.ended("forgot") == 2
    assert "--resume goes on with it" in run.log("forgot")
    assert (run.folder / "out" / "run.json").read_text(encoding="utf-8") == number
    words = (*words, "--resume", "--run-config", f"{config} min-train-nodes=1")
    run.serve("digits", 1, *words, name="again")
    assert run.ended("again") == 0
    assert client.wait(60) == 0
    assert len(run.result()["rounds"]) == 101


def wait_until(ready: Callable[[], bool], log: str) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, log
        time.sleep(0.02)


APP = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

run_config = {"rounds": 2}
server_app, client_app = ServerApp(), ClientApp()


@server_app.main()
def main(grid, context):
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=2)
    initial = ArrayRecord({"x": Array(np.zeros(3))})
    result = strategy.start(grid, initial, num_rounds=context.run_config["rounds"])
    assert (result.arrays["x"].numpy() == 2).all()


@client_app.train()
def train(message, context):
    from flwr.app import MetricRecord

    x = message.content["arrays"]["x"].numpy() + 1
    record = {"arrays": ArrayRecord({"x": Array(x)}), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(record), reply_to=message)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_any_flower_app_runs(run: Processes, kind: str) -> None:
    """Flower's own FedAvg, with an app that knows nothing of flowerpress."""
    if kind == "file":
        app = run.folder / "my_app.py"
    else:
        (run.folder / "app").mkdir()
        app = run.folder / "app" / "their_app.py"
        (run.folder / "app" / "pyproject.toml").write_text(
            "[tool.flwr.app.components]\n"
            'serverapp = "their_app:server_app"\nclientapp = "their_app:client_app"\n'
            "[tool.flwr.app.config]\nrounds = 2\n",
            encoding="utf-8",
        )
    app.write_text(APP, encoding="utf-8")
    name = app if kind == "file" else app.parent
    port = run.serve(name, 2, "--bind", "127.0.0.1:0", "--insecure")
    for i in range(2):
        run.join(name, port, i, "--insecure")
    codes = [run.ended(each) for each in ("join0", "join1", "serve")]
    assert codes == [0, 0, 0], run.log("serve")
    assert len(run.result()["exchanges"]) == 2


def test_a_client_of_another_task_says_so_and_the_right_one_is_waited_for(run: Processes) -> None:
    """A mistake of the client's: exit code 2, one line on either side, and the run goes on."""
    words = ("--insecure", "--run-config", f"{EF21} num-server-rounds=3 min-train-nodes=1")
    port = run.serve("digits", 1, "--bind", "127.0.0.1:0", *words)
    run.join("mnist", port, 0, "--insecure")
    assert run.ended("join0") == 2
    said = "this client's task is 'mnist', the server's 'digits'"
    assert run.log("join0").splitlines()[-1].startswith(f"flowerpress: {said}")
    run.wait_for("serve", f"client 0 leaves: {said}")
    run.join("digits", port, 0, "--insecure")
    assert run.ended("serve") == 0
    assert run.ended("join0") == 0
    assert run.log("serve").count(said) == 1
    assert run.result()["status"] == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "nothing", "--bind", "h:1", "--min-clients", "1", "--insecure"], "neither a"),
        (["serve", "digits", "--bind", "h:1", "--min-clients", "1"], "--insecure for a trial"),
        (["serve", "digits", "--bind", "999.1:1", "--min-clients", "1", "--insecure"], "listen"),
        (["serve", "digits", "--bind", "h:1", "--min-clients", "0", "--insecure"], "min-clients"),
        (["join", "digits", "--server", "h:1", "--client", "0", "--certs", "."], "ca.pem"),
        (
            ["join", "digits", "--server", "h:1", "--client", "0", "--insecure", "--node-config=?"],
            "key=value",
        ),
    ],
    ids=range(6),
)
def test_what_is_wrong_is_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_shipped_task_hears_of_the_clients() -> None:
    config = server_config(resolve("digits"), {"strategy": "ef21"}, 5, Path("there"))
    assert config["task"] == "digits"
    assert config["min-available-nodes"] == 5
    assert config["strategy"] == "ef21"
    assert config["out"] == "there"
    assert (
        server_config(resolve("digits"), {"min-available-nodes": 3}, 5, Path())[
            "min-available-nodes"
        ]
        == 3
    )


def test_help_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in {
        "serve": ("--bind", "--min-clients", "--run-config", "--resume", "--metrics-port"),
        "join": ("--server", "--client", "--node-config", "--state-dir", "--patience"),
        "certs": ("--clients", "--host", "ca.key"),
    }.items():
        main([name, "--help"])
        shown = capsys.readouterr().out
        assert all(word in shown for word in words), name


DEPLOY = Path(__file__).resolve().parents[2] / "examples" / "deploy"


def commands_of_deploy() -> list[list[str]]:
    """Return every command of flowerpress's in the examples of deployment, as words."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    server = [
        line.strip().removeprefix("- ")
        for line in re.findall(r"^      - [^.].*$", text, re.MULTILINE)
    ]
    found = [server]
    for listed in re.findall(r"command: (\[join.*\])", text):
        quoted = listed.replace("[join, npy,", '["join", "npy",').replace("--certs=/certs", "X")
        quoted = re.sub(r"(?<=, )(--[\w=/.-]+|X)(?=[,\]])", r'"\1"', quoted)
        found.append([word.replace("X", "--certs=/certs") for word in json.loads(quoted)])
    for unit in sorted(DEPLOY.glob("*.service")):
        line = re.search(r"^ExecStart=\S+ (.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        assert line is not None, unit
        found.append(shlex.split(line[1]))
    return found


def test_the_examples_of_deployment_are_commands() -> None:
    """Each parses, and its run config is one; whether containers start is not tried here."""
    commands = commands_of_deploy()
    assert len(commands) == 6
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    for name, *words in commands:
        context = root.commands[name].make_context(name, words)
        parse_config(context.params.get("run_config") or context.params["node_config"])
        assert context.params["app"] == "npy"


def test_an_apps_own_key_out_is_its_own() -> None:
    """It may name a file, as that of the example apps does."""
    own = App("app:server", "app:client", {"out": "", "lr": 0.1})
    assert server_config(own, {}, 2, Path("there")) == own.run_config
    whole = App("app:server", "app:client", {"out": "", "checkpoint": "", "resume": False})
    assert server_config(whole, {}, 2, Path("there"))["out"] == "there"


def test_threads_that_began_inside_have_ended_before_the_process_does():
    stop = threading.Event()
    before = threading.Thread(target=stop.wait, daemon=True)
    before.start()
    ended = []

    def work(seconds):
        time.sleep(seconds)
        ended.append(seconds)

    def interrupted():
        with ended_threads():
            for seconds in (0.1, 0.2):
                threading.Thread(target=work, args=[seconds], daemon=True).start()
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert ended == [0.1, 0.2]
        assert before.is_alive()  # it is not waited for
    finally:
        stop.set()
        before.join()
