"""The `flowerpress` commands of each page, one after the other, in an empty folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowerpress.cli import main
from flowerpress.simulations import plots
from tests.pages.blocks import ROOT, Block, Command, all_commands, commands_of
from tests.pages.rules import COMMANDS
from tests.plugins.pages import FILE

pytest.importorskip("sklearn")
pytest.importorskip("torch")
pytest.importorskip("mlxtend")

# Added to a command, which is else as on the page: of an option given twice the last counts.
SHORT = {
    "run": ["--rounds", "2", "--threads", "1"],
    "compare": ["--rounds", "2", "--seeds", "1", "--tuning-seeds", "1", "--lrs", "0.1"],
}

OTHER_TASK = """
import numpy as np
from flowerpress.clients import FunctionTask

def task_fn(partition_id, num_partitions):
    return FunctionTask(np.zeros(5), lambda x, batch: (0.5, x - partition_id))

def other_fn(partition_id, num_partitions):
    return FunctionTask(np.zeros(3), lambda x, batch: (0.5, x - partition_id))
"""


def run_here(command: Command) -> bool:
    named = (key for key in COMMANDS if key[0] == command.page)
    is_named = any(command.text.startswith(text) for _, text in named)
    return command.words[0] == "flowerpress" and not is_named


PAGES = sorted({command.page for command in all_commands() if run_here(command)})


def test_pages_have_commands() -> None:
    assert {"README.md", "start.md", "checkpoints.md", "engines.md", "gossip.md"} <= set(PAGES)


def prepare(page: str, folder: Path) -> None:
    """Put there what the reader of the page has: its files, and data of the reader's own."""
    text = (ROOT if page == "README.md" else ROOT / "docs") / page
    for name, code in FILE.findall(text.read_text("utf-8")):
        (folder / name).write_text(code, "utf-8")
    if page == "runs.md":
        (folder / "my_task.py").write_text(OTHER_TASK, "utf-8")
    if page == "edge.md":
        rng = np.random.default_rng(0)
        for client in ("0", "1", "2", "server"):
            (folder / "data" / client).mkdir(parents=True)
            y = rng.integers(0, 3, 60)
            np.save(folder / "data" / client / "y.npy", y)
            np.save(folder / "data" / client / "x.npy", np.eye(3, 5)[y] + rng.normal(size=(60, 5)))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("page", PAGES)
def test_commands_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "plot", lambda _: b"a picture")  # a second each, drawn elsewhere
    prepare(page, tmp_path)
    for command in filter(run_here, all_commands()):
        if command.page != page:
            continue
        words = list(command.words[1:])
        before = set(tmp_path.rglob("results.json"))
        assert main([*words, *SHORT.get(words[0], [])]) == 0, command.text + capsys.readouterr().err
        assert capsys.readouterr().out
        if words[0] == "compare":
            out = tmp_path / words[words.index("--out") + 1]
            assert {"report.html", "table.csv", "figures"} < {each.name for each in out.iterdir()}
        if words[0] == "run":
            (made,) = set(tmp_path.rglob("results.json")) - before
            runs = json.loads(made.read_text("utf-8"))["runs"]
            assert len(runs) == 1 + ("--baseline" in words)
            assert all(len(each["history"]) == 3 and each["up_bytes"] > 0 for each in runs)


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What `scripts/demo` runs, for two rounds and without its targets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "plot", lambda _: b"a picture")
    script = (ROOT / "scripts" / "demo").read_text("utf-8").partition("exec ")[2]
    (command,) = commands_of(Block("demo", 1, "bash", script))
    assert command.words[:3] == ("flowerpress", "run", "mnist")
    assert command.words[-1] == "$@", "its own arguments come last"
    assert {"--min-ratio", "--max-drop"} <= set(command.words)
    words = [*command.words[1:-1], *SHORT["run"], "--min-ratio", "1", "--max-drop", "100"]
    assert main(words) == 0, capsys.readouterr().err
    (made,) = tmp_path.rglob("results.json")
    pressed, dense = json.loads(made.read_text("utf-8"))["runs"]
    assert pressed["up_bytes"] < dense["up_bytes"]
