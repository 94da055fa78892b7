"""The fenced blocks of the README and the pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import typer

from flowerpress.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
INLINE = re.compile(r"`((?:flowerpress|python benchmarks/|python -m|python scripts/)[^`]*)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language and its text."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of a shell, without comments and continuations; `apart` is one that ends in `&`."""

    page: str
    line: int
    text: str
    words: tuple[str, ...]
    apart: bool


def pages() -> list[Path]:
    """Return the README, what contributors read, and all pages."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("docs/")


def blocks_of(page: str, text: str) -> list[Block]:
    found: list[Block] = []
    start, language, inside = 0, "", None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if fence and inside is None:
            start, language, inside = number, fence[2].strip(), []
        elif fence and inside is not None:
            found.append(Block(page, start, language, "\n".join(inside) + "\n"))
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"{page}: the block of line {start} does not end"
    return found


def all_blocks() -> list[Block]:
    return [b for path in pages() for b in blocks_of(name_of(path), path.read_text("utf-8"))]


def blocks(page: str, language: str) -> list[Block]:
    return [block for block in all_blocks() if (block.page, block.language) == (page, language)]


def commands_of(block: Block) -> list[Command]:
    found = []
    joined = re.sub(r" *\\\n\s*", " ", block.text)
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        apart = words[-1:] == ["&"]
        words = words[:-1] if apart else words
        if words:
            text = re.sub(r"\s+#.*|\s*&\s*(#.*)?$", "", line).strip()
            found.append(Command(block.page, block.line, text, tuple(words), apart))
    return found


def all_commands() -> list[Command]:
    return [c for block in all_blocks() if block.language == "bash" for c in commands_of(block)]


def parse(words: tuple[str, ...]) -> click.Context:
    """Parse the words after `flowerpress`, as the command line does; nothing is run."""
    command: click.Command = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    return command.make_context(command.name, rest)
