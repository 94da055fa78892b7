"""What `flowerpress run` has one of, and `flowerpress compare` several."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowerpress.cli import main


@pytest.mark.parametrize(
    ("first", "second", "several"),
    [
        (["--strategy", "ef21"], ["--strategy=nobody-looks"], "--strategies A,B"),
        (["--compressor", "sign"], ["--compressor", "topk:0.1"], "--compressors A,B"),
        (["--lr", "0.1"], ["--lr", "0.1"], "--lrs A,B"),
        (["--seed", "1"], ["--seed", "2"], "--seeds A,B"),
    ],
)
def test_who_names_several_is_told_of_compare(
    first: list[str],
    second: list[str],
    several: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*first, "--rounds", "1", *second, "--out", str(tmp_path / "out")]
    assert main(["run", "digits", *words]) == 2
    said = f"{first[0]} is given 2 times: `flowerpress compare TASK {several}` runs several"
    assert capsys.readouterr().err.startswith(f"flowerpress: {said}")
    assert not (tmp_path / "out").exists()


def test_of_any_other_option_the_last_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    """As a script that adds its own arguments needs it: `scripts/demo` does."""
    words = ["--clients", "2", "--rounds", "3", "-S", "weights=uniform", "-S", "momentum=1"]
    assert main(["run", "digits", *words, "--out", str(tmp_path), "--rounds", "1"]) == 0
    assert "round 1/1" in capsys.readouterr().out


def test_help_is_shown_nevertheless(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--lr", "1", "--lr", "2", "--help"]) == 0
    assert "Usage: flowerpress run" in capsys.readouterr().out
