"""What is left of a run that is stopped, and what its last lines and its exit code say."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from flowerpress.cli import main
from flowerpress.cli.training import Signals
from flowerpress.simulations import results as results_module

OPTIONS = ["--strategy", "ef21", "--lr", "0.1", "--clients", "3", "--threads", "1"]

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """A shell lets what runs in the background ignore SIGINT, and nohup SIGHUP."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(name: str, *more: str, rounds: int = 6) -> int:
    return main(["run", name, *OPTIONS, "--rounds", str(rounds), "--out", "runs", *more])


def only_folder(folder: Path) -> Path:
    (where,) = folder.glob("runs/*")
    return where


def runs_in(where: Path) -> list[dict[str, Any]]:
    return json.loads((where / "results.json").read_text("utf-8"))["runs"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("task", ["ctrl_c", "terminated", "hung_up"])
def test_a_signal_leaves_the_results_so_far(
    task: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    assert run(f"own_tasks.py:{task}") == 130
    shown = capsys.readouterr()
    where = only_folder(folder)
    (one,) = runs_in(where)
    assert (one["status"], one["rounds"]) == ("interrupted", 3)
    assert [record["round"] for record in one["history"]] == [0, 1, 2, 3]
    assert load_file(where / "model.safetensors")["x"].any()
    assert (where / "plot.png").exists()
    place = where.relative_to(folder)
    told = f"flowerpress: interrupted after round 3 of 6: results so far in {place}"
    assert shown.err.splitlines()[-1] == told
    assert "3 of 6 rounds" in shown.out
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_a_stop_in_the_baseline_keeps_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "late.py").write_text(
        "import numpy as np\nfrom flowerpress.clients import FunctionTask\n"
        "calls = iter(range(99))\n"
        "def task_fn(i, n):\n"
        "    def gradient(x, batch):\n"
        "        if next(calls) == 3 * 4 + 3 * 2:\n            raise KeyboardInterrupt\n"
        "        return 0.5, x - i\n"
        "    return FunctionTask(np.zeros(5), gradient)\n"
    )
    assert run("late.py", "--baseline", rounds=4) == 130
    where = only_folder(folder)
    whole, part = runs_in(where)
    assert (whole["status"], whole["rounds"]) == ("done", 4)
    assert (part["status"], part["rounds"]) == ("interrupted", 2)
    assert whole["ratio_to_dense"]["source"] == "computed", "half a baseline is none"
    assert (where / "baseline.safetensors").exists()
    assert "interrupted after round 2 of 4 of the baseline" in capsys.readouterr().err


def test_a_stop_before_the_first_round_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("own_tasks.py:stopped_at_once") == 130
    told = "interrupted before a round had ended: there are no results"
    assert told in capsys.readouterr().err
    assert not list(folder.glob("runs/*"))


def test_a_run_that_cannot_go_on_leaves_the_results_so_far(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("own_tasks.py:failing") == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "round 4: all 3 clients fail; client 0: own_tasks.py, line " in shown.err
    where = only_folder(folder)
    (one,) = runs_in(where)
    assert (one["status"], one["rounds"]) == ("failed", 3)
    assert one["reason"].startswith("RoundError: round 4: all 3 clients fail")
    assert (where / "model.safetensors").exists()
    assert f"results in {where.relative_to(folder)}" in shown.out


def test_the_folder_says_what_runs_from_the_beginning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "looking.py").write_text(
        "import json, pathlib\nfrom own_tasks import task_fn\nseen = []\n"
        "def evaluate_fn(server_round, arrays):\n"
        "    (file,) = pathlib.Path('runs').glob('*/results.json')\n"
        "    seen.append(json.loads(file.read_text()))\n    return {}\n"
    )
    assert run("looking.py") == 0
    from flowerpress.user_code import load_module

    first = load_module("looking.py").seen[0]["runs"][0]
    assert first["status"] == "running"
    assert first["config"]["strategy"] == "ef21"
    assert capsys.readouterr().err == ""


def test_a_place_that_cannot_be_written_is_found_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    for out, patched in (("file/runs", False), ("runs", True)):
        if patched:
            monkeypatch.setattr(results_module, "write_file", refuse)
        assert main(["run", "own_tasks.py", *OPTIONS, "--rounds", "5", "--out", out]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith(f"flowerpress: results cannot be kept in {out}: ")
        assert shown.err.count("\n") == 1
        assert shown.out == "", "before anything is run"
    assert main(["run", "own_tasks.py", *OPTIONS, "--checkpoint", "file/saved"]) == 2
    assert "checkpoints cannot be kept in file/saved/run: Not a directory" in (
        capsys.readouterr().err
    )


def test_a_disk_that_is_full_at_the_end_loses_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = results_module.write_file

    def full(path: Path, data: bytes) -> None:
        if "runs" in path.parts and path.name != "model.safetensors" and b"running" not in data:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(results_module, "write_file", full)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert run("own_tasks.py") == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "lack results.json (No space left on device), plot.png (No space left" in shown.err
    (spare,) = folder.glob("flowerpress-results-*")
    assert shown.err.rstrip().endswith(f"everything is in {spare}")
    assert {path.name for path in spare.iterdir()} == {
        "model.safetensors",
        "results.json",
        "plot.png",
    }
    assert runs_in(spare)[0]["status"] == "done"
    where = only_folder(folder)
    assert sorted(path.name for path in where.iterdir()) == ["model.safetensors", "results.json"]
    assert runs_in(where)[0]["status"] == "running", "the old file, whole"
    assert "ratio to dense" in shown.out, "what could not be written can be read"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_write_on_a_real_full_disk_leaves_no_part(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        results_module.write_file(small / "a", b"old")
        with pytest.raises(OSError, match="No space left"):
            results_module.write_file(small / "a", bytes(100_000))
        assert [path.name for path in small.iterdir()] == ["a"]
        assert (small / "a").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(small)], check=True)


VERDICTS = {
    "done": ("task_fn", 0, []),
    "one client fails": ("one_useless", 0, ["client 0 took part in 0 of the 6 rounds"]),
    "diverged": ("exploding", 1, ["diverged: the train loss went from 1 to 1e+05; lower lr"]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_last_lines_and_the_exit_code_say_what_became_of_it(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, code, said = VERDICTS[case]
    assert run(f"own_tasks.py:{task}") == code
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == len(said)
    for line, expected in zip(lines, said, strict=True):
        assert line.startswith(f"flowerpress: {expected}")
        assert line.removeprefix("flowerpress: ") not in shown.out, "once, at the end"
    (one,) = runs_in(only_folder(folder))
    assert one["status"] == ("diverged" if code else "done")
    assert [*filter(None, [one["reason"]]), *one["left_out"]] == [
        line.removeprefix("flowerpress: ") for line in lines
    ]


def test_nothing_trained_is_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.algorithms.test_results import spoil

    spoil(monkeypatch)
    assert run("own_tasks.py", "--baseline") == 1
    lines = capsys.readouterr().err.splitlines()
    told = "flowerpress: ef21 topk:0.01: nothing was trained in 6 rounds: every update was lost or"
    assert lines[0].startswith(told)
    assert lines[1].startswith("flowerpress: ef21 topk:0.01: client 0 took part in 0 of the 6")
    assert lines[4].startswith("flowerpress: fedavg: nothing was trained")
    assert [one["status"] for one in runs_in(only_folder(folder))] == ["nothing trained"] * 2


def test_a_target_of_accuracy_needs_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("own_tasks.py", "--baseline", "--max-drop", "1") == 1
    assert "the task measures no accuracy, which max-drop is about" in capsys.readouterr().err


class Closed(io.TextIOWrapper):
    """A pipe whose reader has gone after some lines."""

    def __init__(self, lines: int) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._left = lines

    def write(self, text: str) -> int:
        self._left -= text.count("\n")
        if self._left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def fileno(self) -> int:  # what rich lets go nowhere
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize("arguments", [["list"], ["run", "own_tasks.py", *OPTIONS]])
def test_a_reader_that_ends_ends_the_command(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `flowerpress run ... | head`; what was measured is kept."""
    monkeypatch.setattr(sys, "stdout", Closed(4))
    monkeypatch.setattr("flowerpress.cli.without_reader", lambda: None)
    assert main(arguments) == 141
    if arguments[0] == "run":
        (one,) = runs_in(only_folder(folder))
        assert one["rounds"] >= 1


def as_typed(*words: str, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start the command; where pytest runs in the background, its children ignore SIGINT."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"{before}from flowerpress.__main__ import main; sys.exit(main())"
    )
    return subprocess.Popen([sys.executable, "-c", code, *words], text=True, **options)


INTERRUPTED_ONCE = """
import atexit, builtins
imported = builtins.__import__
def importing(name, *more):
    if name == "click":
        builtins.__import__ = imported
        {}
    return imported(name, *more)
builtins.__import__ = importing
"""


@pytest.mark.parametrize(
    "when", ["signal.raise_signal(2)", "atexit.register(signal.raise_signal, 2)"]
)
def test_ctrl_c_is_one_line_whenever_it_comes(when: str, tmp_path: Path) -> None:
    """While the command line is imported, and when the command has ended."""
    before = f"exec({INTERRUPTED_ONCE.format(when)!r});"
    process = as_typed(
        "list", before=before, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "flowerpress: interrupted\n")
    assert bool(shown) == ("atexit" in when)


def test_ctrl_c_in_a_command_that_says_nothing_of_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowerpress.cli.link.require_number", stopped)
    assert main(["join", "digits", "--server", "h:1", "--insecure", "--client", "0"]) == 130
    assert capsys.readouterr().err.strip() == "flowerpress: interrupted"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("list", 0), ("nope", 2)])
def test_what_is_closed_gets_nothing(closed: str, words: str, code: int, tmp_path: Path) -> None:
    shell = f"{sys.executable} -m flowerpress {words} {closed}"
    ended = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert bool(ended.stdout) == (code == 0 and ">&-" not in closed.replace("2>&-", ""))
    assert bool(ended.stderr) == (code != 0 and "2>&-" not in closed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    code = (  # where pytest runs in the background, its children ignore SIGINT
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from flowerpress.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["run", "digits", "--rounds", "20000", "--checkpoint", "saved"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: bool(list(tmp_path.glob("saved/run/round-000003*"))))
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    (where,) = tmp_path.glob("runs/*")
    assert said.splitlines()[-1].endswith(f"results so far in runs/{where.name}")
    assert load_file(where / "model.safetensors")["weight"].any()


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass  # Python calls the handler somewhere here


def test_a_signal_that_a_library_swallows_is_not_lost() -> None:
    with Signals() as signals:
        signals.check()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        send(signal.SIGTERM)  # while results are written, of a service manager's
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_what_is_ignored_stays_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            send(signal.SIGHUP)
            signals.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < end
