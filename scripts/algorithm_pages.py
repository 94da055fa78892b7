"""Write ``docs/algorithms/``: each line of a paper beside the statement that does it.

    python scripts/algorithm_pages.py            # writes the pages
    python scripts/algorithm_pages.py --check    # 1 if one is not what it would write

The lines are those of a module's docstring, numbered as in the paper. A statement that does one
says so in a comment at its end, ``# 2``, ``# 2-4`` or ``# 1 or 4``; they stand in the paper's
order. The page "every algorithm in fifteen lines" is made of the plain references that the tests
compare with.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tokenize
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import dedent

from flowerpress.algorithms import OWN
from flowerpress.simulations.catalogue import Row, option_rows
from flowerpress.strategies import CompressedStrategy

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "algorithms"
REFERENCES = ("error_feedback", "variance_reduced", "adam", "sketched", "gossip")
_LINE = re.compile(r" {4}(\d+)\. (.*)")
_MARK = re.compile(r"# (\d+)(?:-(\d+))?(?: or (\d+))?(?!\w)")
_BASES = ("flowerpress.server.base", "flowerpress.worker.worker")


@dataclass(frozen=True)
class Statement:
    """A statement that does some of a paper's lines."""

    lines: tuple[int, ...]
    code: str


def paper_lines(docstring: str) -> dict[int, str]:
    r"""Return the numbered lines of a docstring, up to the first number that does not follow.

    >>> paper_lines("    1. toss\n       a coin\n    2. go\n\nOr:\n\n    2. stay\n")
    {1: 'toss\na coin', 2: 'go'}
    """
    found: dict[int, str] = {}
    open_line = False
    for line in docstring.splitlines():
        match = _LINE.match(line)
        if match and int(match[1]) == len(found) + 1:
            found[int(match[1])], open_line = match[2].strip(), True
        elif open_line and not match and line.startswith(" " * 5):
            found[len(found)] += "\n" + line.strip()
        else:
            open_line = False
            if match:
                break
    return found


def functions(cls: type) -> list[ast.FunctionDef]:
    """Return the methods that a class has of its own family, its round first."""
    found: dict[str, ast.FunctionDef] = {}
    for each in cls.__mro__:
        if not each.__module__.startswith("flowerpress.") or each.__module__ in _BASES:
            continue
        tree = ast.parse(Path(inspect.getfile(each)).read_text("utf-8"))
        body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == each.__name__)
        for node in body.body:
            if isinstance(node, ast.FunctionDef) and node.name not in found:
                found[node.name] = node
                node.source = inspect.getfile(each)  # type: ignore[attr-defined]
    return sorted(found.values(), key=lambda node: node.name != "round")


def statements(function: ast.FunctionDef) -> list[Statement]:
    """Return the statements of a function that say which lines they do, from top to bottom."""
    text = Path(function.source).read_text("utf-8")  # type: ignore[attr-defined]
    marks = {}
    for token in tokenize.generate_tokens(StringIO(text).readline):
        match = _MARK.match(token.string) if token.type == tokenize.COMMENT else None
        if match and token.line[: token.start[1]].strip():  # at the end of a statement
            lines = range(int(match[1]), int(match[2] or match[1]) + 1)
            marks[token.start[0]] = (*lines, *([int(match[3])] if match[3] else []))
    found = []
    inside = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    for row, lines in sorted(marks.items()):
        around = [n for n in inside if n.lineno <= row <= (n.end_lineno or 0) and n is not function]
        if around:
            smallest = min(around, key=lambda n: (n.end_lineno or 0) - n.lineno)
            code = dedent(ast.get_source_segment(text, smallest, padded=True) or "")
            found.append(Statement(lines, re.sub(r" *# .*", "", code).strip()))
    return found


def half(cls: type) -> tuple[dict[int, str], list[Statement]]:
    """Return the paper's lines of one half of an algorithm, and the statements that do them.

    Raises
    ------
    ValueError
        A line has no statement, or statements of one function are not in the paper's order.
    """
    docs = (inspect.getdoc(inspect.getmodule(each)) or "" for each in cls.__mro__)
    lines = next(filter(None, map(paper_lines, docs)), {})
    found: list[Statement] = []
    for function in functions(cls):
        own = statements(function)
        firsts = [each.lines[0] for each in own]
        if firsts != sorted(firsts):
            raise ValueError(f"{cls.__name__}.{function.name} does lines {firsts}, not in order")
        found += own
    done = {line for each in found for line in each.lines}
    if missing := sorted(set(lines) - done):
        raise ValueError(f"{cls.__name__}: no statement says that it does lines {missing}")
    if unknown := sorted(done - set(lines)):
        raise ValueError(f"{cls.__name__}: its docstring has no lines {unknown}")
    return lines, sorted(found, key=lambda each: each.lines)


def table(cls: type) -> list[str]:
    """Return the lines of a half beside their statements, as Markdown."""
    lines, found = half(cls)
    rows = ["| | the paper | the code |", "|---|---|---|"]
    for number, text in lines.items():
        codes = [each.code for each in found if number in each.lines]
        said, code = (_cell(part) for part in (text.splitlines(), codes))
        rows.append(f"| {number} | {said} | {code} |")
    return rows


def _cell(parts: list[str]) -> str:
    flat = (re.sub(r"\s+", " ", part).replace("( ", "(").replace(", )", ")") for part in parts)
    flat = (part.replace(" )", ")").replace("|", "\\|") for part in flat)
    return "<br>".join(f"`{part}`" for part in flat)


def page(name: str) -> str:
    """Return the page of an algorithm."""
    server, worker = (OWN[name].load(each) for each in ("strategy", "worker"))
    parts = [
        f"# {name}",
        "",
        f"{server.citation}. Made from the source by `scripts/algorithm_pages.py`.",
    ]
    for title, cls in (("server", server), ("worker", worker)):
        path = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
        parts += ["", f"## The {title}'s half, `{path}`", "", *table(cls)]
    own, _ = option_rows(server)
    parts += [
        "",
        "## Its options",
        "",
        "[Those of all](index.md#options-of-all) it has as well.",
        "",
    ]
    return "\n".join([*parts, *options(own)]) + "\n"


def options(rows: list[Row]) -> list[str]:
    """Return options as a Markdown table."""
    lines = ["| option | default | values | the paper's | |", "|---|---|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default else ""
        cells = (f"`{row.name}`", default, row.values, row.letter, row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def fifteen_lines() -> str:
    """Return the page of the plain references."""
    parts = [
        "# Every algorithm in fifteen lines",
        "",
        "One loop each, in float64 and with everybody's state in one place: no packets, no",
        "clients, nothing lost. The tests compare every step of the strategies with these. They",
        "are in `tests/reference/`; this page is made of them by `scripts/algorithm_pages.py`.",
        "Line by line beside the real code: [an index](algorithms/index.md).",
    ]
    for name in REFERENCES:
        text = (ROOT / "tests" / "reference" / f"{name}.py").read_text("utf-8")
        tree = ast.parse(text)
        title, _, told = (ast.get_docstring(tree) or "").partition("\n\n")
        parts += ["", f"## {title.split(',')[0].rstrip('.')}", "", *told.splitlines()]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                code = ast.get_source_segment(text, node) or ""
                parts += ["", "```python", *code.splitlines(), "```"]
    return "\n".join(parts) + "\n"


def index() -> str:
    """Return the page that names the others."""
    parts = [
        "# From the paper's line to ours",
        "",
        "Each line of a paper's pseudo-code beside the statement that does it, made from the",
        "source by `scripts/algorithm_pages.py`. All at a glance: [Algorithms](../algorithms.md);",
        "as plain loops: [every algorithm in fifteen lines](../fifteen-lines.md).",
        "",
        *(f"- [{name}]({name}.md): {OWN[name].load('strategy').citation}" for name in sorted(OWN)),
        "",
        "## Options of all",
        "",
        "As `-S NAME=VALUE`, as keys of a run config, and with `_` in Python; where an algorithm",
        "has a default or a meaning of its own, its page says so.",
        "",
        *options(option_rows(CompressedStrategy)[1]),
    ]
    return "\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Return all pages by where they are."""
    own = {PAGES / f"{name}.md": page(name) for name in sorted(OWN)}
    return {PAGES.parent / "fifteen-lines.md": fifteen_lines(), PAGES / "index.md": index(), **own}


def main() -> int:
    """Write the pages, or compare them."""
    stale = 0
    PAGES.mkdir(exist_ok=True)
    for path, text in pages().items():
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
    return int("--check" in sys.argv and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
