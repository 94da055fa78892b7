"""`flowerpress new`: a Flower app of one's own, small and whole, to be changed from there."""

from __future__ import annotations

import keyword
from pathlib import Path

START = "--lr 0.03 --compressor topk:0.1 --rounds 100 --clients 4"
"""Options with which the example trains well."""

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
# flowerpress is found in the Python that runs Flower: name it where your package index has it,
# since `flwr run` installs what stands here.
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["{package}"]

[tool.flwr.app]
publisher = "me"

[tool.flwr.app.components]
serverapp = "{package}.server:app"
clientapp = "{package}.client:app"

# Each may be set: flwr run . --run-config 'strategy="ef14" compressor="sign"'. "" is the default.
[tool.flwr.app.config]
task = "{package}.task:task_fn"
strategy = "ef21-sgdm"
compressor = "topk:0.1"
downlink = ""
lr = 0.03
local-steps = ""
num-server-rounds = 100
min-available-nodes = 2
round-timeout = 600
seed = 0
strategy-options = "" # any other of `flowerpress list NAME`: "KEY=VALUE KEY=VALUE"
out = "" # a folder for results, the model and bytes by round
checkpoint = "" # a folder in which the run is saved after each round
checkpoint-every = 1
resume = false
"""
_TASK = '''\
"""What is trained: replace the data, the model and its gradient by your own.

`task_fn` is called once on each client. Of a PyTorch model, see `flowerpress.clients.TorchTask`.
"""

import numpy as np

from flowerpress.clients import FunctionTask

DIM = 200


def data(seed, rows):
    """Return rows of a linear model with noise; here all clients have the same."""
    truth = np.random.default_rng(0).standard_normal(DIM)
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((rows, DIM)).astype(np.float32)
    return inputs, (inputs @ truth + 0.1 * rng.standard_normal(rows)).astype(np.float32)


def task_fn(partition_id, num_partitions):
    """Return what one client trains on."""
    inputs, wanted = data(1 + partition_id, 400)

    def gradient(x, batch):
        rows = slice(None) if batch is None else batch
        off = inputs[rows] @ x - wanted[rows]
        return float(np.mean(off**2)), 2 * inputs[rows].T @ off / len(off)

    return FunctionTask(
        np.zeros(DIM, np.float32),
        gradient,
        draw=lambda rng: rng.choice(len(wanted), 64, replace=False),
        num_examples=len(wanted),
        evaluate=lambda x: {{"loss": gradient(x, None)[0]}},
    )


def evaluate_fn(server_round, arrays):
    """Evaluate the server's model after each round; may be left out."""
    x = arrays["x"].numpy()
    inputs, wanted = data(10_000, 1000)
    return {{"loss": float(np.mean((inputs @ x - wanted) ** 2))}}
'''
_CLIENT = '''\
"""The client: one ClientApp for all algorithms."""

from flowerpress.clients import client_app
from {package}.task import task_fn

app = client_app(task_fn)
'''
_SERVER = '''\
"""The server: runs the strategy, and saves what the run config in pyproject.toml says."""

from flowerpress.simulations.flower_app import server_app as app

__all__ = ["app"]
'''
_README = """\
# {name}

```bash
flowerpress run ./{package}/task.py {start}
flwr run . --stream   # Flower's simulation, or a SuperLink
```

On machines, with `flowerpress` and this folder on each:

```bash
flowerpress certs certs --clients 2 --host SERVER
flowerpress serve . --bind 0.0.0.0:9400 --certs certs --min-clients 2 --out out
flowerpress join . --server SERVER:9400 --certs certs --client 0 --state-dir state
```

The data, the model and its gradient are in `{package}/task.py`; `serve --resume` goes on with the
run in `out`.
"""


def make(folder: Path) -> str:
    """Write a new app to a folder that is not there yet, or empty; returns its package's name.

    Raises
    ------
    ValueError
        The folder's name cannot be a package's.
    OSError
        There is something in it, or it cannot be made.
    """
    name = folder.resolve().name
    package = name.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package) or package == "flowerpress":
        raise ValueError(
            f"{name!r} cannot name a package: give letters, digits, - or _, not a digit first"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OSError(f"{folder} is there already: name another, or an empty folder")
    files = {
        "pyproject.toml": _PROJECT,
        "README.md": _README,
        f"{package}/__init__.py": "",
        f"{package}/task.py": _TASK,
        f"{package}/client.py": _CLIENT,
        f"{package}/server.py": _SERVER,
    }
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.format(name=name, package=package, start=START), encoding="utf-8")
    return package
