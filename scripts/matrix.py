"""Install flowerpress beside other versions, test it there, and compare the bytes that it sends.

A row's name says what is installed: ``py3.12-flwr1.36`` is Python 3.12, flwr 1.36 and the newest of
all else that pyproject.toml allows. Its parts, after the Python:

    newest               nothing but the newest
    lowest               the lowest version of each direct requirement that has wheels
    nightly              flwr-nightly in place of flwr
    pinned               constraints.txt
    flwr1.36, numpy1.26  that release of a package

A row is a virtual environment in ``.matrix/``. First come flowerpress, as a wheel, and what it
requires, to see that it works without its extras; there the bytes are compared. Then come the
extras, and tests are run. torch is left out, since an index may give a build of several GB for it,
and so is Ray: the row ``here`` has them, which is the environment that runs this script.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".matrix"
KERNELS = WORK / "kernels"  # compiled ones, for all rows of a Python and a numba
UV = Path(sys.executable).with_name("uv")  # Flower brings it
PYTHONS = ("3.11", "3.12", "3.13")
KINDS = ("flwr1.36", "newest", "nightly", "lowest")  # for each Python
MORE = ("py3.11-pinned", "py3.11-numpy1.26", "py3.11-click8.1", "here")
SHOWN = ("flwr", "numpy", "numba", "click", "typer", "grpcio", "protobuf", "cryptography")
RELEASE = re.compile(r"([a-z]+)(\d[\d.]*)")  # flwr1.36
# Flower needs it, and the newest would lift grpcio and protobuf off their floors.
BESIDE = ("grpcio-health-checking>=1.70",)
# Later ones need numpy 2, and do not say so. flwr-datasets needs it.
OF_OLD_NUMPY = ["pyarrow<25"]
WITHOUT = ("flowerpress", "torch", "flwr")  # of what the extras name: itself, and flwr[simulation]
# What differs where versions do: Flower's classes, the command line, gRPC and TLS, the arithmetic
# of numpy and numba, what is on disk and on the wire. All other tests took 20 minutes more a row.
TESTS = (
    *("tests/flower", "tests/golden", "tests/protocol/test_messages.py"),
    *("tests/cli/test_click.py", "tests/cli/test_options.py", "tests/cli/test_report.py"),
    *("tests/transport/test_link.py", "tests/transport/test_codec.py"),
    *("tests/transport/test_frames.py", "tests/transport/test_certs.py"),
    *("tests/algorithms/test_early_stop.py", "tests/algorithms/test_tree.py"),
    *("tests/tasks/test_shipped.py", "tests/tasks/test_partition.py"),
    *("tests/test_project.py", "tests/test_exported_members.py", "tests/test_same_bytes.py"),
    "tests/dropin",
)


@dataclass
class Row:
    """A way to install flowerpress, and what came of it."""

    name: str
    interpreter: str = ""  # that its environment is made of
    kinds: list[str] = field(default_factory=list)
    kernels: str = ""  # of which Python and numba, once these are known
    versions: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    tests: str = ""
    failed: str = ""

    @property
    def folder(self) -> Path:
        """Where it is installed, with a log."""
        return WORK / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        here = self.name == "here"
        return Path(sys.executable) if here else self.folder / "venv" / "bin" / "python"

    def call(self, *command: str | Path, cwd: Path = ROOT, **more: str) -> str:
        """Run a command, its output in the log; `ValueError` that says where if it fails.

        What else is given are variables of its environment.
        """
        own = {"NUMBA_CACHE_DIR": str(KERNELS / self.kernels), "UV_PYTHON_DOWNLOADS": "never"}
        own |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "CI": "1"}
        env = {**os.environ, **own, **more}
        if self.name != "here":
            env.pop("PYTHONPATH", None)  # what is installed, and nothing else
        words = [str(word) for word in command]
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            done = subprocess.run(
                words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=log, text=True, check=False
            )
            log.write(done.stdout)
        if done.returncode:
            last = " ".join(done.stdout.strip().splitlines()[-1:]) or "no output"
            raise ValueError(f"{' '.join(words[:4])}: {last}: see {self.folder / 'log.txt'}")
        return done.stdout


def find_python(version: str) -> str:
    """Return an interpreter of this version, on PATH or of pyenv; empty where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for each in [f"python{version}", *sorted(pyenv.glob(f"{version}.*/bin/python"))]:
        path = shutil.which(each)
        # pyenv's commands on PATH are there whether or not the version may be used.
        tried = path and subprocess.run([path, "-c", ""], capture_output=True, check=False)
        if path and tried and tried.returncode == 0:
            return path
    return ""


def parse(name: str, found: dict[str, str]) -> Row:
    """Return the row of a name; `ValueError` for what is none."""
    if name == "here":
        return Row(name)
    python, *kinds = name.removeprefix("py").split("-")
    if python not in found:
        raise ValueError(f"{name}: no Python {python} here, but {', '.join(found)}")
    for kind in kinds:
        if kind not in ("newest", "lowest", "nightly", "pinned") and not RELEASE.fullmatch(kind):
            raise ValueError(f"{name}: {kind!r} is no part of a row, see scripts/matrix.py")
    return Row(name, found[python], kinds)


def requirements(*extras: str) -> list[str]:
    """Return what pyproject.toml requires; with extras, what they do, without torch and Ray."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [
        *project["dependencies"],
        *BESIDE,
        *(line for line in more if re.split(r"[^\w-]", line)[0] not in WITHOUT),
    ]


def install(row: Row, *extras: str) -> None:
    """Install flowerpress, as a wheel, with the versions that the row's name says."""
    lines, limits, how = requirements(*extras), [], ["--no-build"]
    for kind in row.kinds:
        if kind == "nightly":
            lines = [re.sub(r"^flwr(?![\w-]).*", "flwr-nightly", line) for line in lines]
        elif kind == "lowest":
            how += ["--resolution", "lowest-direct"]
            limits += OF_OLD_NUMPY
        elif kind == "pinned":
            how += ["--constraint", str(ROOT / "constraints.txt")]
        elif release := RELEASE.fullmatch(kind):
            limits.append(f"{release[1]}=={release[2]}.*")
            limits += OF_OLD_NUMPY if kind.startswith("numpy1") else []
    wanted, exact = row.folder / "requirements.in", row.folder / "requirements.txt"
    wanted.write_text("\n".join([*lines, *limits]) + "\n", encoding="utf-8")
    options = ["-q", "--python", row.interpreter, *how, "-o", str(exact), "--upgrade"]
    row.call(UV, "pip", "compile", wanted, *options)
    if re.search(r"^(torch|nvidia\S*)==", exact.read_text(encoding="utf-8"), re.MULTILINE):
        raise ValueError(f"{row.name} would install torch: see {exact}")
    into = ["-q", "--python", str(row.python)]
    row.call(UV, "pip", "sync", *into, exact)
    row.call(UV, "pip", "install", *into, "--no-deps", "--reinstall-package", "flowerpress", ROOT)


def run(row: Row, tests: list[str]) -> None:
    """Install a row, compare its bytes, and test it; raises `ValueError` where something fails."""
    shutil.rmtree(row.folder, ignore_errors=True)
    row.folder.mkdir(parents=True)
    if row.name != "here":
        row.call(UV, "venv", "-q", "--python", row.interpreter, row.folder / "venv")
        install(row)
    # Not the working tree's flowerpress, but the installed one: away from the root, by path.
    row.call(row.python, "-P", ROOT / "tests" / "without_extras.py", cwd=row.folder)
    if row.name != "here":
        install(row, "demo", "fast", "gossip", "test", "metrics")
    row.versions = versions(row)
    row.kernels = "python{python}-numba{numba}".format_map(row.versions)
    lines = row.call(row.python, "-m", "tests.same_bytes", FLOWERPRESS_KERNELS="numba")
    (row.folder / "bytes.txt").write_text(lines, encoding="utf-8")
    row.digest = lines.split()[-1]
    said = row.call(row.python, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", *tests)
    row.tests = said.strip().splitlines()[-1].strip("= ").rsplit(" in ", 1)[0]


def versions(row: Row) -> dict[str, str]:
    """Return the versions of Python and of what is shown of a row."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "found['flwr'] = found.get('flwr-nightly') or found['flwr']\n"
        "found['python'] = platform.python_version()\n"
        "print(json.dumps({name: found.get(name, '') for name in sys.argv[1:]}))"
    )
    found: dict[str, str] = json.loads(row.call(row.python, "-c", code, "python", *SHOWN))
    return found


def table(rows: list[Row]) -> str:
    """Return what came of the rows, as a table in Markdown."""
    head = ["row", "python", *SHOWN, "bytes", "tests"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        shown = [row.versions.get(name, "") for name in head[1:-2]]
        lines.append([row.name, *shown, row.digest, row.failed or row.tests])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Run the rows named on the command line, or all; 1 where one fails or bytes differ."""
    parser = argparse.ArgumentParser(description="Test flowerpress with other versions.")
    parser.add_argument("rows", nargs="*", help="such as py3.12-flwr1.36; by default all")
    parser.add_argument("--list", action="store_true", help="print the rows' names, and end")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="what pytest gets")
    options = parser.parse_args()
    found = {version: path for version in PYTHONS if (path := find_python(version))}
    every = [f"py{version}-{kind}" for version in found for kind in KINDS]
    every += [name for name in MORE if name == "here" or name[2:].split("-")[0] in found]
    if options.list:
        print("\n".join(every))
        return 0
    try:
        rows = [parse(name, found) for name in options.rows or every]
    except ValueError as error:
        parser.exit(2, f"matrix: {error}\n")
    shutil.rmtree(KERNELS, ignore_errors=True)  # of another state of the sources
    for row in rows:
        try:
            run(row, options.tests)
        except ValueError as error:
            row.failed = str(error).replace(f"{ROOT}/", "")
        print(f"{row.name}: {row.digest} {row.failed or row.tests}", flush=True)
        text = f"{dt.date.today()}\n\n{table(rows)}"
        (WORK / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    same = len({row.digest for row in rows if row.digest}) <= 1
    if not same:
        print("matrix: the rows do not send the same bytes: compare .matrix/*/bytes.txt")
    return 0 if same and not any(row.failed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
