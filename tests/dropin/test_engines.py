"""The pressed examples on Flower's own engines and on the link, as real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerpress.simulations.loopback import COMPLETED, Loopback
from tests.dropin.test_examples import NAMES, copy_of, run

pytestmark = pytest.mark.flower
ROUNDS = 3


def config_of(folder: Path, nodes: int) -> dict[str, Any]:
    return {"num-server-rounds": ROUNDS, "min-nodes": nodes, "out": str(folder / "out.json")}


def assert_as_in_process(name: str, folder: Path, found: dict[str, Any], nodes: int) -> None:
    """All that the app tells, to the last bit where answers are added in an order that is known.

    Engines draw the nodes' numbers, by which answers are added. The sum of two is the same in
    either order; that of three is not, in its last bits, from which the accuracies part.
    """
    there = copy_of(name, folder / "in-process", pressed=True)
    expected = run(there, **config_of(there, nodes))
    if nodes == 2:
        for each in (found, expected):
            for metrics in told_of(each):
                metrics.pop("seconds", None)
        expected.pop("log")
        assert found == expected
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.02)
    assert len(found["train"]) == len(expected["train"]) == ROUNDS


def told_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics of each round, which apps tell by round or in order."""
    told = found["train"]
    return list(told.values() if isinstance(told, dict) else told)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch adds in another order with more."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with Loopback(tmp_path_factory.mktemp("ray"), simulation=True) as flower:
        yield flower


@pytest.mark.parametrize("name", NAMES)
def test_ray(ray: Loopback, tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path / "app", pressed=True)
    report = ray.run(
        folder, config_of(folder, 3), federation_config={"num-supernodes": 3}, limit=300
    )
    assert report.status == COMPLETED, ray.log("run")
    assert "uplink" in ray.log("run")
    assert_as_in_process(name, tmp_path, json.loads((folder / "out.json").read_text("utf-8")), 3)


@pytest.mark.parametrize("name", NAMES)
def test_superlink_and_supernodes(tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path / "app", pressed=True)
    with Loopback(tmp_path / "flower") as flower:
        for i in range(2):
            own = {"partition-id": i, "num-partitions": 2, "state-dir": str(tmp_path / f"s{i}")}
            flower.start_node(f"node-{i}", own)
        report = flower.run(folder, config_of(folder, 2), limit=400)
        assert report.status == COMPLETED, flower.log("run")
        assert "refused 0" in flower.log("run")
    assert_as_in_process(name, tmp_path, json.loads((folder / "out.json").read_text("utf-8")), 2)


@pytest.mark.parametrize("pressed", [True, False], ids=["pressed", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_the_link_with_tls(tmp_path: Path, name: str, pressed: bool) -> None:
    """Unmodified apps run there too, dense."""
    folder = copy_of(name, tmp_path / "app", pressed=pressed)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    start = [sys.executable, "-m", "flowerpress"]
    made = [*start, "certs", str(tmp_path / "certs"), "--clients", "2"]
    subprocess.run(made, env=env, check=True, capture_output=True)
    config = config_of(folder, 2)
    measured = pressed and name == "torch"  # its pyproject has the key
    if measured:
        config["flowerpress.report"] = str(tmp_path / "report.json")
    given = " ".join(f"{k}={json.dumps(v)}" for k, v in config.items())
    secure = ["--certs", str(tmp_path / "certs")]
    serve = [*start, "serve", str(folder), "--bind", "127.0.0.1:0", *secure, "--min-clients", "2"]
    serve += ["--run-config", given, "--out", str(tmp_path / "out")]
    with subprocess.Popen(serve, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(each for each in server.stderr if "listening on port" in each)
        port = line.split("port ")[1].split()[0]
        clients = []
        for i in range(2):
            join = [*start, "join", str(folder), "--server", f"localhost:{port}", *secure]
            join += ["--client", str(i), "--state-dir", str(tmp_path / f"s{i}")]
            clients.append(subprocess.Popen(join, env=env, stderr=subprocess.DEVNULL))
        log = server.stderr.read()
        codes = [each.wait(120) for each in (server, *clients)]
    assert codes == [0, 0, 0], log
    assert ("uplink" in log) == pressed
    found = json.loads((folder / "out.json").read_text("utf-8"))
    told = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["rounds"]
    assert [each["round"] for each in told] == list(range(1, ROUNDS + 1))
    assert all(each["up_bytes"] > 0 for each in told)
    if measured:  # what the link adds to a message of the ledger's bytes: heads and frames
        ledger = json.loads((tmp_path / "report.json").read_text("utf-8"))
        for way in ("up_bytes", "down_bytes"):
            added = sum(each[way] for each in told) - ledger[way]
            print(f"{way}: the link adds {added / (2 * ROUNDS):.0f} bytes a message")
            assert abs(added) <= 0.02 * ledger[way]
    if pressed:
        assert_as_in_process(name, tmp_path, found, 2)
    else:
        assert len(found["accuracy"]) >= ROUNDS
