"""Every fenced block of the README and the pages is run, or named with the test that does it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flowerpress.compressors.kernels import philox
from flowerpress.dropin import Settings
from tests.pages.blocks import (
    INLINE,
    ROOT,
    Command,
    all_blocks,
    all_commands,
    blocks,
    blocks_of,
    commands_of,
    name_of,
    pages,
    parse,
)
from tests.pages.rules import BLOCKS, COMMANDS, GIVEN, SHORTER, THEN

RUN = sorted(
    {b.page for b in all_blocks() if b.language == "python" and (b.page, "python") not in BLOCKS}
)


def test_every_block_has_its_test() -> None:
    known = {"python", "bash"}
    there = {(block.page, block.language) for block in all_blocks()}
    missing = {each for each in there - set(BLOCKS) if each[1] not in known}
    assert missing == set(), "name the test of these in tests/pages/rules.py"
    assert set(BLOCKS) - there == set(), "these are on no page any more"
    for table in (SHORTER, GIVEN, THEN):
        assert set(table) <= set(RUN) | {"README.md"}


def test_tests_that_are_named_are_there() -> None:
    for named in {*BLOCKS.values(), *COMMANDS.values()}:
        file, name = named.split("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text("utf-8"), named


def test_blocks_and_commands_are_found() -> None:
    text = "a\n```bash\nls -l \\\n  -a  # all\n# only said\n\nrun 'a #1' &\n```\nb\n```\nx\n```\n"
    shell, plain = blocks_of("p.md", text)
    assert (shell.line, shell.language, plain.language, plain.text) == (2, "bash", "", "x\n")
    first, second = commands_of(shell)
    assert (first.text, first.words, first.apart) == ("ls -l -a", ("ls", "-l", "-a"), False)
    assert (second.words, second.apart) == (("run", "a #1"), True)
    with pytest.raises(AssertionError, match="line 1 does not end"):
        blocks_of("p.md", "```bash\nls\n")


def rules_for(command: Command) -> list[tuple[str, str]]:
    return [key for key in COMMANDS if key[0] == command.page and command.text.startswith(key[1])]


def test_every_command_has_its_test() -> None:
    """What is not in the table is run by tests/pages/test_commands.py, which knows flowerpress."""
    used = Counter(key for command in all_commands() for key in rules_for(command))
    assert set(COMMANDS) - set(used) == set(), "these are on no page any more"
    for command in all_commands():
        if command.words[0] != "flowerpress" or command.words[1] in ("serve", "join"):
            assert len(rules_for(command)) >= 1, f"{command.page}: nothing runs {command.text}"


def test_options_are_there() -> None:
    for command in all_commands():
        words = command.words[1:]
        if command.words[0] == "flowerpress" and not words[0].startswith("--"):
            assert parse(words).command.name in words[:2]


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(("run", "digits", "--nope"))


def inline() -> list[tuple[str, str]]:
    found = []
    for path in pages():
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        found += [(name_of(path), " ".join(each.split())) for each in INLINE.findall(text)]
    return found


# In a sentence, these stand for whatever the reader has there.
PLACES = {"NAME": "ef21", "DIR": "certs", "FOLDER": "saved", "N": "3", "APP": "digits"}


def test_a_command_in_a_sentence_is_one() -> None:
    """It parses, and the file that it names is there; whether it does what is said is not seen."""
    seen = 0
    for page, said in inline():
        words = [PLACES.get(word, word).strip("'") for word in said.split()]
        if words[0] == "python":
            file = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
            assert (ROOT / file).is_file() or (ROOT / file.removesuffix(".py")).is_dir(), page
            seen += 1
        elif len(words) > 2 and words[0] == "flowerpress" and not {"...", "--help"} & set(words):
            if words[1] != "--show-completion":  # tests/cli/test_completion.py
                parse(tuple(words[1:]))
            seen += 1
    assert seen > 50


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("page", RUN)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__", "Path": Path}
    exec(GIVEN.get(page, ""), names)
    changes, unused = SHORTER.get(page, {}), set(SHORTER.get(page, {}))
    for block in blocks(page, "python"):
        text = block.text
        for old, new in changes.items():
            unused -= {old} if old in text else set()
            text = text.replace(old, new)
        exec(compile("\n" * block.line + text, page, "exec"), names)
    assert unused == set(), "SHORTER has what is not on the page any more"
    exec(THEN[page], names)


def test_diffs_are_those_of_the_example_apps() -> None:
    diff = (ROOT / "examples" / "apps" / "torch" / "pressed.diff").read_text("utf-8")
    added = {line for line in diff.splitlines() if re.match(r"[+-][^+-]", line)}
    assert len(added) == 5
    for page in ("README.md", "dropin.md"):
        (block,) = blocks(page, "diff")
        shown = {re.sub(r"\s+# .*", "", line) for line in block.text.splitlines()}
        shown = {line for line in shown if line[:1] in "+-" and line}
        # The app of the example has a mod of its own, which stays behind ours.
        theirs = {line.replace("[press, seconds]", "[press]") for line in added}
        assert shown == {line.replace("(mods=[seconds])", "()") for line in theirs}


def test_the_run_config_of_a_pressed_app() -> None:
    (block,) = blocks("dropin.md", "toml")
    keys = tomllib.loads(block.text)["tool"]["flwr"]["app"]["config"]["flowerpress"]
    assert len(keys) == 2
    for name, value in keys.items():
        assert getattr(Settings(**{name: value or "none"}), name) == (value or "none")


def test_lines_of_the_log_are_told_so() -> None:
    """Without their figures they are what the source says."""
    source = " ".join(p.read_text("utf-8") for p in (ROOT / "flowerpress").rglob("*.py"))
    assert len(blocks("security.md", "text")) == 2
    for text, words in zip(
        [block.text for block in blocks("security.md", "text")],
        [("is none of this run's",), ("times the median", "max_scale is")],
        strict=True,
    ):
        for each in words:
            assert each in text
            assert each in source


def test_random_words_as_the_page_says() -> None:
    (block,) = [b for b in blocks("wire-format.md", "text") if "0x9E3779B9" in b.text]
    *steps, last = block.text.strip().splitlines()
    mask, index = 2**32 - 1, np.array([0, 1, 1023], np.uint32)
    wanted = philox.mix(index, np.uint32(123456789), np.uint32(4000000000)).tolist()
    for i, word in zip(index.tolist(), wanted, strict=True):
        names = {"i": i, "a": 123456789, "b": 4000000000}
        for step in steps:
            exec(step, names)
            names["x"] &= mask  # "with arithmetic modulo 2^32"
        assert eval(last, names) == word
