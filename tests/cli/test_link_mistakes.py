"""Mistakes of `serve`, `join` and `certs`: one line, exit code 2, before anybody connects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowerpress.cli import main

SERVE = ["serve", "digits", "--bind", "127.0.0.1:0", "--insecure", "--min-clients", "2"]
JOIN = ["join", "digits", "--server", "127.0.0.1:1", "--insecure", "--client", "0"]
APP = """
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

run_config = {"rounds": 2, "rate": 0.5, "name": "x", "fast": True, "any": ""}
server_app, client_app = ServerApp(), ClientApp()
"""


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that is said of a command, besides the warning of plain text."""
    assert main(words) == 2
    lines = [each for each in capsys.readouterr().err.splitlines() if "WARNING" not in each]
    (line,) = lines
    assert line.startswith("flowerpress: ")
    return line


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('strateg="ef21"', "'strateg'"),
        ('strategy="ef12"', "unknown strategy 'ef12'"),
        ('strategy="ef21" momentum=0.5', "strategy ef21 has no option 'momentum'"),
        ('compressor="zip"', "zip"),
        ('compressor="topk:0"', "topk"),
        ('downlink="zip" strategy="ef14"', "zip"),
        ("lr=abc", "lr is 'abc': expected a number"),
        ("lr=-1.0", "lr is -1.0"),
        ("num-server-rounds=2.5", "num-server-rounds is 2.5: expected a whole number"),
        ("num-server-rounds=0", "num-server-rounds is 0"),
        ("round-timeout=0", "round-timeout is 0"),
        ("seed=x", "seed is 'x'"),
        ("checkpoint-every=0", "checkpoint_every"),
        ("resume=maybe", "resume is 'maybe'"),
        ('task="digit"', "unknown task 'digit'"),
        ('backend="tensorflow"', "expected one of numpy, torch"),
        ('hidden=3 task="digits"', "has no option 'hidden'"),
        ('partition="thirds"', "thirds"),
        ('partition="pathological:11"', "pathological"),
        ("batch-size=-1", "batch_size"),
        ("min-available-nodes=-1", "min_available_nodes"),
        ("fraction-train=2.0", "fraction_train"),
        ('strategy="choco-sgd" topology="moebius"', "moebius"),
        ("num_server_rounds=3", "'num_server_rounds': did you mean 'num-server-rounds'?"),
        ('checkpoint="/dev/null/x"', "no results can be kept in /dev/null: File exists"),
        ('out="/dev/null/x"', "no results can be kept in /dev/null: File exists"),
        ("lr=", "does not begin with key=value"),
        ("lr=1 lr=2", "'lr' is given twice"),
    ],
)
def test_a_run_config_is_read_before_anybody_connects(
    config: str, said: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    assert said in line_of([*SERVE, "--run-config", config], capsys)
    assert not list(in_a_folder.iterdir())  # and nothing was begun


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("round=3", "this app has no 'round'; it has any, fast, name, rate, rounds"),
        ("rounds=2.5", "rounds is 2.5, expected a whole number, such as 2"),
        ("rounds=many", "rounds is 'many', expected a whole number"),
        ("rate=fast", "rate is 'fast', expected a number"),
        ("name=3", "name is 3, expected a text in quotes"),
        ("fast=1", "fast is 1, expected true or false"),
    ],
)
def test_a_run_config_of_an_own_app_is_held_against_its_own(
    config: str, said: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "app.py").write_text(APP, encoding="utf-8")
    words = ["serve", "app.py", *SERVE[2:], "--run-config", config]
    assert said in line_of(words, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bind", "127.0.0.1"], "--bind '127.0.0.1': the port is missing"),
        (["--bind", ":80000"], "the host is missing"),
        (["--bind", "0.0.0.0:80000"], "the port is a whole number from 0 to 65535"),
        (["--bind", "::1:9400"], "in brackets, such as [::1]:9400"),
        (["--min-clients", "0"], "min-clients"),
        (
            ["--min-clients", "300", "--max-clients", "256"],
            "--min-clients 300 is more than --max-clients 256",
        ),
        (["--bind", "192.0.2.1:9400"], "cannot listen on 192.0.2.1:9400: Cannot assign requested"),
        (["--max-answer", "0"], "max-answer"),
        (["--max-answer", "nan"], "--max-answer is nan: expected at most 1e+09"),
        (["--max-answer", "inf"], "--max-answer is inf: expected at most 1e+09"),
        (["--grace", "nan"], "--grace is nan: expected a number"),
        (
            ["--out", "/dev/null/x"],
            "no results can be kept in /dev/null: File exists; give another",
        ),
        (["--metrics-port", "0", "--metrics-host", "a b"], "--metrics-port: cannot listen on a b"),
        (["--metrics-port", "70000"], "metrics-port"),
        (["--checkpoint-every", "-1"], "checkpoint-every"),
        (["--grace", "0"], "grace"),
        (["--deny", "revoked.txt"], "--deny needs --certs"),
        (["--certs", "."], "--insecure for a trial"),
    ],
)
def test_options_of_serve(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in line_of([*SERVE, *words], capsys)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('compressor="zip"', "compressor is 'zip': unknown compressor"),
        ("compressor=0.1", "expected a compressor in quotes"),
        ('compresor="topk:0.1"', "unknown key 'compresor': did you mean 'compressor'? Known are"),
        ("partition-id=x", "partition-id is 'x': expected a whole number from 0 on"),
        ("partition-id=-1", "partition-id is -1"),
        ("num-partitions=0", "num-partitions is 0: expected a whole number from 1 on"),
        ("partition-id=5 num-partitions=3", "partition-id is 5, and num-partitions 3: parts are"),
        ("client-id=1.5", "client-id is 1.5"),
        ('device="meta"', "device is 'meta': tensors there have no numbers"),
        ('state-store="dsk"', "expected live or disk or context"),
        ("state-sync=1", "state-sync is 1: expected true or false"),
        ('backend="tensorflow"', "expected one of numpy, torch"),
        ('device="gpu:0"', "device is 'gpu:0'"),
        ('path="/data"', "task 'digits' has no option 'path'"),
        ("batch-size=-3", "batch_size"),
        ("compressor", "does not begin with key=value"),
    ],
)
def test_a_node_config_is_read_before_the_client_connects(
    config: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in line_of([*JOIN, "--node-config", config], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "localhost"], "--server 'localhost': the port is missing"),
        (["--server", "::1:9400"], "in brackets"),
        (["--server", "h:0"], "from 1 to 65535"),
        (["--server", "grpc://h:1"], "is not a host name"),
        (["--client", "-1"], "client"),
        (["--patience", "-1"], "patience"),
        (["--patience", "nan"], "--patience is nan: expected a number"),
        (["--state-dir", "file/below"], "no memory can be kept in file/below: Not a directory"),
    ],
)
def test_options_of_join(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "file").write_bytes(b"")
    assert said in line_of([*JOIN, *words], capsys)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"run_id":"x"}', '{"run_id":1e999}', '{"run_id":-5}',
     '{"run_id":1.5}', '{"run_id":99999999999999999999}', '{"run_id":1,"clients":1e999}',
     '{"run_id":1,"clients":-3}', '{"run_id":1,"clients":true}', "[" * 100_000, "\xff"],
)  # fmt: skip
def test_a_damaged_run_file(
    text: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "out").mkdir()
    (in_a_folder / "out/run.json").write_text(text, encoding="latin-1")
    said = line_of([*SERVE, "--resume"], capsys)
    assert "out/run.json cannot be read" in said
    assert "remove it to begin anew" in said


@pytest.mark.parametrize("app", ["digits", "app.py"])
@pytest.mark.parametrize("data", [b"", b"garbage", bytes(100)])
def test_damaged_checkpoints_are_found_before_anybody_connects(
    app: str, data: bytes, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "app.py").write_text(APP, encoding="utf-8")
    (in_a_folder / "out/checkpoints").mkdir(parents=True)
    (in_a_folder / "out/run.json").write_text('{"run_id": 5, "clients": 2}')
    for number in (2, 3):
        (in_a_folder / f"out/checkpoints/round-00000{number}.safetensors").write_bytes(data)
    said = line_of(["serve", app, *SERVE[2:], "--resume"], capsys)
    assert "no checkpoint in out/checkpoints is left" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "x.npy"),
        ({"x": np.zeros((4, 3)), "y": np.zeros(3, int)}, "y.npy"),
        ({"x": np.zeros((4, 3)), "y": np.full(4, -1)}, "y.npy"),
        ({"x": np.zeros((4, 3), complex), "y": np.zeros(4, int)}, "x.npy"),
    ],
    ids=["none", "lengths", "labels", "dtype"],
)
def test_data_are_looked_at_before_the_client_connects(
    files: dict[str, np.ndarray], said: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "data").mkdir()
    for name, values in files.items():
        np.save(in_a_folder / "data" / f"{name}.npy", values)
    words = ["join", "npy", *JOIN[2:], "--node-config", 'path="data"']
    assert said in line_of(words, capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n    pass\n", "app.py, line 1: invalid syntax"),
        ("\n\nimport os\n1 / 0\n", "app.py, line 4: ZeroDivisionError: division by zero"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
        ("x = 1\n", "has no 'server_app'"),
    ],
)
def test_an_app_that_cannot_be_loaded(
    text: str, said: str, capsys: pytest.CaptureFixture[str], in_a_folder: Path
) -> None:
    (in_a_folder / "app.py").write_text(text, encoding="utf-8")
    assert said in line_of(["serve", "app.py", *SERVE[2:]], capsys)
    join = line_of(["join", "app.py", *JOIN[2:]], capsys)
    assert said.replace("server_app", "client_app") in join
