"""Any console takes the output; versions, completion, and hints that are true."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flowerpress.cli import main
from flowerpress.cli.consoles import plain
from flowerpress.cli.names import compressors, named, strategies, tasks, versions
from flowerpress.extras import import_failure
from flowerpress.simulations.catalogue import KINDS
from flowerpress.simulations.report import show
from flowerpress.suggestions import did_you_mean
from tests.cli.test_report import outcome

COMMANDS = (
    ["list"],
    ["--help"],
    ["run", "--help"],
    ["serve", "--help"],
    ["bench", "compressors", "--help"],
    ["--version"],
    ["run", "digits", "--rounds", "1", "--clients", "2", "--out", "runs"],
)
ENCODINGS = ("ascii", "cp1252", "cp437", "gbk", "utf-8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_prints_in_any_encoding(
    encoding: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in COMMANDS:
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        err = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            assert main(command) == 0, command
        out.flush()
        text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert len(text.splitlines()) >= 1
        if command == ["list"]:
            assert ("Richtárik" if encoding not in ("ascii", "gbk") else "Richt") in text
            if encoding == "ascii":
                assert "Richtarik" in text


def test_errors_print_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["run", "digits", "--strategy", "größe→"]) == 2
    err.flush()
    assert b"unknown strategy 'grosse->'" in err.buffer.getvalue()  # type: ignore[attr-defined]


def test_what_is_read_alike() -> None:
    text = "Stich, Richtárik — “x − y” ≤ 2× … ✓"  # noqa: RUF001
    assert plain(text) == 'Stich, Richtarik - "x - y" <= 2x ... ?'
    assert plain("┏━┳━┓┃└─┘╭╮│") == "+-+-+|+-+++|"


def test_a_table_fits_where_it_is_shown() -> None:
    """A log has room for all of it; in a narrow terminal it stands on its side. Nothing is cut."""
    name = "countsketch:rows=5,columns=200000+some-very-long-name-of-a-stage"
    runs = [outcome(compressor=name)], outcome(12_000, strategy="fedavg", compressor=None)
    file = io.StringIO()
    show(Console(file=file, width=80), *runs)
    wide = file.getvalue()
    assert f"ef21-sgdm {name}" in wide
    narrow = io.StringIO()
    terminal = Console(file=narrow, width=60, force_terminal=True, color_system=None)
    show(terminal, *runs)
    for part in ("accuracy", "ratio to dense", "90.00 %", "40.0x", "300 B", "fedavg", "1.2"):
        assert part in wide
        assert part in narrow.getvalue(), "each in one piece"
    assert "…" not in narrow.getvalue()
    assert all(len(line) <= 60 for line in narrow.getvalue().splitlines())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import flowerpress

    assert main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown == versions() + "\n"
    assert shown.startswith(f"flowerpress {flowerpress.__version__} (Python ")
    assert "flwr " in shown


def test_names_are_completed(folder: Path) -> None:
    assert strategies("ef21") == ["ef21", "ef21-sgd2m", "ef21-sgdm"]
    assert compressors("sig") == ["sign", "signtopk"]
    assert compressors("topk:0.1+qs") == ["topk:0.1+qsgd"]
    assert tasks("d") == ["digits", "divergence"]
    assert tasks("own") == ["own_tasks.py"]
    assert tasks("./own") == ["./own_tasks.py"]
    assert {"all", *KINDS, "dropin"} <= set(named(""))
    assert named("ef14") == ["ef14"]
    assert named("topk") == ["topk"]


def test_a_shell_completes_them() -> None:
    env = {"COMP_WORDS": "flowerpress run digits --strategy squ", "COMP_CWORD": "4"}
    env |= {"_FLOWERPRESS_COMPLETE": "complete_bash", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "flowerpress"], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["squarm-sgd"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("EF21", "ef21"),
        ("ef21_sgdm", "ef21-sgdm"),
        ("Topk", "topk"),
        ("fedavrg", "fedavg"),
        ("quantum", ""),
        ("", ""),
    ],
)
def test_what_was_probably_meant(given: str, meant: str) -> None:
    from flowerpress.compressors import compressor_names
    from flowerpress.strategies import strategy_names

    expected = f": did you mean {meant!r}?" if meant else ""
    assert did_you_mean(given, [*strategy_names(), *compressor_names()]) == expected


def test_a_missing_package_and_a_broken_one_are_told_apart() -> None:
    missing = ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    assert str(import_failure(missing, "task 'digits'", "scikit-learn", "sklearn")) == (
        "task 'digits' needs scikit-learn: pip install scikit-learn"
    )
    for broken in (
        ModuleNotFoundError("No module named 'pyarrow.lib'", name="pyarrow.lib"),
        ImportError("DLL load failed"),
    ):
        told = str(import_failure(broken, "x", "scikit-learn", "sklearn"))
        assert "pip install" not in told
        assert str(broken) in told
