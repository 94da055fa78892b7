"""Deploying as the pages say it: their lines, as real processes, with TLS, on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flowerpress.cli import main
from flowerpress.simulations.loopback import free_port
from tests.cli.processes import Processes
from tests.pages.blocks import Command, all_commands, blocks
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


def test_three_clients_with_tls(tmp_path: Path) -> None:
    """The README's block as a shell runs it; its port alone is another, one that is free."""
    prepare("README.md", tmp_path)
    (block,) = [b for b in blocks("README.md", "bash") if "flowerpress certs" in b.text]
    assert block.text.count(":9400") == 4
    # Ends with the code of the first that failed: `&` and `wait` alone would hide it.
    script = "set -e\n" + block.text.replace(":9400", f":{free_port()}")
    script += "for job in $(jobs -p); do wait $job; done\n"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "flowerpress"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flowerpress "$@"\n', "utf-8")
    program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FLOWERPRESS_STATE_DIR": str(tmp_path / "state"),
    }
    with (tmp_path / "log").open("wb") as log:
        command = ["bash", "-c", script]
        shell = subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        # Five processes start Python with torch, on machines that may be busy.
        assert shell.wait(300) == 0, (tmp_path / "log").read_text("utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    told = json.loads((tmp_path / "results" / "result.json").read_text("utf-8"))
    assert told["status"] == "done"
    assert sorted(told["clients"]) == ["0", "1", "2"]
    assert len(told["rounds"]) == 31
    first, last = (told["rounds"][i]["metrics"]["accuracy"] for i in (0, -1))
    assert last > max(first, 0.6)
    assert all(each["up_bytes"] > 0 for each in told["rounds"][1:])
    assert (tmp_path / "certs" / "client-2.key").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_page_of_the_link(processes: Processes) -> None:
    """Its one client stands for all: each has its number, on a machine of its own."""
    deploy("link.md", processes, 2)
    assert (processes.folder / "results" / "result.json").exists()
