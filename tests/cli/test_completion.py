"""Completion, as shells ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowerpress.cli import main
from flowerpress.compressors import compressor_names
from flowerpress.simulations.tasks import task_names
from flowerpress.strategies import strategy_names


def asked(
    shell: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """Return what a shell is told for a line; the word to be completed is its last."""
    words = line.split(" ")
    monkeypatch.setenv("_FLOWERPRESS_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    if shell == "zsh":  # _arguments '*: :(("ef21":"" ...))'
        told = told.partition("((")[2].rpartition("))")[0]
        # In a list for zsh a colon parts a name from its help, so one in a name is escaped.
        words = (each.split('":')[0].strip('"') for each in told.split("\n") if each)
        return [word.replace("\\\\:", ":") for word in words]
    return told.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("flowerpress run ", task_names),
        ("flowerpress run digits --strategy ", strategy_names),
        ("flowerpress run digits --compressor ", compressor_names),
        ("flowerpress list ", strategy_names),
        ("flowerpress list ", compressor_names),
    ],
    ids=["tasks", "strategies", "compressors", "list strategies", "list compressors"],
)
def test_every_name_is_told(
    shell: str, line: str, known, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(known()) <= set(asked(shell, line, monkeypatch, capsys))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_only_what_a_word_may_become(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "flowerpress run digits --compressor topk:0.1+qs"
    assert asked(shell, line, monkeypatch, capsys) == ["topk:0.1+qsgd"]
    line = "flowerpress run digits --strategy sq"
    assert asked(shell, line, monkeypatch, capsys) == ["squarm-sgd"]


@pytest.mark.parametrize(
    ("shell", "own"),
    [
        ("bash", "complete -o default"),
        ("zsh", "#compdef flowerpress"),
        ("fish", "complete --command flowerpress"),
        ("powershell", "Register-ArgumentCompleter"),
    ],
)
def test_it_is_shown(shell: str, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the shell that is named, whichever the tests were started from."""
    with pytest.raises(SystemExit) as ended:  # typer's own way to end
        main(["--show-completion", shell])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "_FLOWERPRESS_COMPLETE" in shown
    assert own in shown


def test_a_shell_that_there_is_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show-completion", "tcsh"]) == 2
    said = capsys.readouterr().err
    assert "tcsh" in said
    assert "bash" in said
    assert "Valid commands" not in said


def command(folder: Path) -> dict[str, str]:
    """Return an environment in which `flowerpress` is a command, and `folder` the home."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "flowerpress"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flowerpress "$@"\n', "utf-8")
    program.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_it_is_installed(tmp_path: Path) -> None:
    """By the command of the page; then bash itself completes."""
    env = command(tmp_path)
    subprocess.run(
        ["flowerpress", "--install-completion", "bash"],
        env=env,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    script = """
. "$HOME/.bashrc"
COMP_WORDS=(flowerpress run digits --strategy squ)
COMP_CWORD=4
$(complete -p flowerpress | sed 's/.*-F \\([^ ]*\\).*/\\1/') flowerpress squ --strategy
echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["squarm-sgd"], done.stderr
