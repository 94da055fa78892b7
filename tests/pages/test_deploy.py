"""Deploying as the pages say it: their lines, as real processes, with TLS, on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerpress.cli import main
from tests.cli.processes import Processes
from tests.pages.blocks import Command, all_commands
from tests.pages.test_commands import prepare

pytest.importorskip("sklearn")
pytest.importorskip("torch")


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.chdir(tmp_path)
    running = Processes(tmp_path)
    yield running
    running.end()


def lines(page: str, command: str) -> list[Command]:
    return [
        each
        for each in all_commands()
        if each.page == page and each.words[:2] == ("flowerpress", command)
    ]


def put(words: tuple[str, ...], option: str, value: str) -> list[str]:
    """Return the words after `flowerpress` with another value of an option."""
    changed = list(words[1:])
    changed[changed.index(option) + 1] = value
    return changed


def deploy(page: str, run: Processes, clients: int) -> None:
    """Start what the page starts. Its ports are any, and its hosts are this one."""
    prepare(page, run.folder)
    (certs,), (serve,) = lines(page, "certs"), lines(page, "serve")
    assert main(list(certs.words[1:])) == 0
    run.start("serve", *put(serve.words, "--bind", "127.0.0.1:0"))
    port = run.wait_for("serve", r"listening on port (\d+)")
    joins = lines(page, "join")
    for i in range(clients):
        words = joins[min(i, len(joins) - 1)].words
        words = ("flowerpress", *put(words, "--server", f"localhost:{port}"))
        state = ("--state-dir", "state")  # not the home of whoever runs the tests
        run.start(f"join{i}", *put(words, "--client", str(i)), *state)
    ended = {name: run.ended(name) for name in run.all}
    assert ended == dict.fromkeys(run.all, 0), run.log("serve")


def test_three_clients_with_tls(processes: Processes) -> None:
    """The README's: a torch model of the user's own, a certificate for each."""
    assert [each.words[-1] for each in lines("README.md", "join")] == ["0", "1", "2"]
    deploy("README.md", processes, 3)
    result = processes.folder / "results" / "result.json"
    told = json.loads(result.read_text("utf-8"))
    assert told["status"] == "done"
    assert sorted(told["clients"]) == ["0", "1", "2"]
    assert len(told["rounds"]) == 31
    first, last = (told["rounds"][i]["metrics"]["accuracy"] for i in (0, -1))
    assert last > max(first, 0.6)
    dense = 3 * 30 * (8 * 16 + 16 + 16 * 3 + 3) * 4
    assert 0 < sum(each["up_bytes"] for each in told["rounds"]) < 2 * dense
    assert "--insecure" not in processes.log("serve")
    assert (processes.folder / "certs" / "client-2.key").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_page_of_the_link(processes: Processes) -> None:
    """Its one client stands for all: each has its number, on a machine of its own."""
    deploy("link.md", processes, 2)
    assert (processes.folder / "results" / "result.json").exists()
