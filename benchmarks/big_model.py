"""Memory and seconds of a server and a client of a large model, over the link on this machine.

    python -m benchmarks.big_model                            # d = 2.5e7, and its bars
    python -m benchmarks.big_model --dim 2.5e8 --init compressed
    python -m benchmarks.big_model --task torch               # a TorchTask
    python -m benchmarks.big_model --against HEAD~5           # beside an earlier commit, in turns

Both are processes of their own. d is the number of float32 numbers of the model, and "2.1 d" are
2.1 x 4 d bytes. A process's base is its resident memory once it has run a model of 4 MB; its peak
is ``VmHWM``, file pages included, which is set back before each round. With ``--bars`` the command
exits with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
CLIENT_BAR, TORCH_BAR, SERVER_BAR, GOODPUT_BAR = 4.2, 4.3, 2.2, 0.6
SMALL = 1 << 20  # numbers of the model that is run first
_LAYERS = 16  # arrays of the model
_PIECE = 1 << 20  # numbers that the task works on at once

# --- figures of a process -------------------------------------------------------------------------


def status(field: str) -> int:
    """Return a size in /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.partition(f"{field}:")[2].split()[0])


class Meter:
    """Peaks and seconds of what goes on between two calls of `lap`."""

    def __init__(self, dim: int) -> None:
        self._unit = 4 * dim
        self._spent: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Begin here: what there is of memory is the base."""
        self.laps: list[dict[str, float]] = []
        self._base, self._anon = status("VmRSS"), status("RssAnon")
        self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._start, self._cpu = time.perf_counter(), time.process_time()
        self._spent = {}

    def lap(self) -> None:
        """Note what there was since the last lap, and begin the next."""
        self.laps.append(
            {
                "peak": round((status("VmHWM") - self._base) / self._unit, 2),
                "kept": round((status("VmRSS") - self._base) / self._unit, 2),
                "anon": round((status("RssAnon") - self._anon) / self._unit, 2),
                "s": round(time.perf_counter() - self._start, 2),
                "cpu_s": round(time.process_time() - self._cpu, 2),
                **{f"{name}_s": round(spent, 2) for name, spent in self._spent.items()},
            }
        )
        self._begin()

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a phase."""
        self._spent[name] = self._spent.get(name, 0.0) + seconds

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, whose seconds are counted as those of a phase."""

        def inside(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, time.perf_counter() - start)

        return inside


# --- the server -----------------------------------------------------------------------------------


def sizes(dim: int) -> list[int]:
    """Return the lengths of the model's arrays."""
    cuts = [dim * i // _LAYERS for i in range(_LAYERS + 1)]
    return [b - a for a, b in pairwise(cuts)]


def give_back_large_memory() -> None:
    """Do what the commands `serve` and `join` do at their start."""
    try:
        heap = import_module("flowerpress.protocol.heap")
    except ImportError:  # an earlier commit
        try:
            heap = import_module("flowerpress.transport.heap")
        except ImportError:
            return
    heap.give_back_large_memory()


def serve(given: argparse.Namespace) -> None:
    """Be the server, of a small model and then of the large one: says its ports and figures."""
    meter = Meter(given.dim)
    for dim in (SMALL, given.dim):
        meter.reset()
        ledger = serve_one(given, dim, meter)
    print(json.dumps({"ledger": ledger}))
    print(json.dumps(meter.laps), flush=True)


def serve_one(given: argparse.Namespace, dim: int, meter: Meter) -> list[int]:
    """Run a server; return the bytes that went down and up."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    from flowerpress.strategies import make_strategy
    from flowerpress.transport.serve import Service

    app, sent = ServerApp(), list[int]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        options: dict[str, Any] = {"lr": 0.01, "min_available_nodes": 1, "min_train_nodes": 1}
        if given.strategy != "fedavg":
            options |= {"compressor": given.compressor, "downlink": given.downlink}
        if given.strategy.startswith("ef21"):
            options["init"] = given.init
        strategy: Any = make_strategy(given.strategy, **options)
        configure, aggregate = strategy.configure_train, strategy.aggregate_train

        def configured(*args: Any) -> Any:
            meter.lap()
            return meter.timed("orders", configure)(*args)

        strategy.configure_train = configured
        strategy.aggregate_train = meter.timed("aggregate", aggregate)
        strategy.start(grid, model(given, dim), num_rounds=given.rounds, timeout=3000)
        meter.lap()
        sent.extend([strategy.ledger.down_bytes, strategy.ledger.up_bytes])

    service = Service("127.0.0.1:0", None, 1)
    print(service.port, flush=True)
    service.run(app)
    return sent


def model(given: argparse.Namespace, dim: int) -> Any:
    """Return the first model, which the caller alone holds."""
    import numpy as np
    from flwr.app import Array, ArrayRecord

    if given.task == "torch":
        return torch_task(dim).initial_arrays()
    arrays = ArrayRecord()
    for i, size in enumerate(sizes(dim)):
        arrays[f"w{i}"] = Array(np.full(size, 0.01, np.float32))
    return arrays


# --- the client -----------------------------------------------------------------------------------


def torch_task(dim: int) -> Any:
    """Return a TorchTask of some `dim` parameters, whose activations are their square root."""
    import torch

    from flowerpress.clients import TorchTask

    side = max(1, round((dim / _LAYERS) ** 0.5))
    with torch.device("meta"):
        model: Any = torch.nn.Sequential(
            *(torch.nn.Linear(side, side, bias=False) for _ in range(_LAYERS))
        )
    model.to_empty(device="cpu")
    with torch.no_grad():
        for i, layer in enumerate(model):
            layer.weight.normal_(0, side**-0.5, generator=torch.Generator().manual_seed(i))
    x = torch.linspace(0, 1, 4 * side).reshape(4, side)
    loss = torch.nn.functional.mse_loss
    return TorchTask(model, loss, (x, torch.zeros(4, side)), batch_size=None)


def array_task(dim: int) -> Any:
    """Return a task that makes its gradient piece by piece, and holds nothing."""
    import numpy as np
    from flwr.app import Array, ArrayRecord

    from flowerpress.clients import Task

    noise = np.random.default_rng(0).standard_normal(_PIECE, dtype=np.float32)

    class Pieces(Task):
        num_examples = 1

        def initial_arrays(self) -> ArrayRecord:
            arrays = ArrayRecord()
            for i, size in enumerate(sizes(dim)):
                arrays[f"w{i}"] = Array(np.zeros(size, np.float32))
            return arrays

        def gradient(self, x: Any, batch: Any) -> tuple[float, Any]:
            out = np.empty_like(x)
            return self.gradient_into(x, out, batch), out

        def gradient_into(self, x: Any, out: Any, batch: Any) -> float:
            for start in range(0, x.size, _PIECE):
                stop = min(start + _PIECE, x.size)
                np.multiply(x[start:stop], np.float32(0.5), out=out[start:stop])
                out[start:stop] += noise[: stop - start]
            return 0.0

        def evaluate(self, x: Any) -> dict[str, float]:
            return {}

    return Pieces()


def join(given: argparse.Namespace) -> None:
    """Be the client, of a small model and then of the large one; says its figures."""
    from flowerpress.transport import client as link

    meter, begun = Meter(given.dim), [0.0]
    incoming: Any = vars(link)["Incoming"]

    class Noted(incoming):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            begun[0] = time.perf_counter()
            super().__init__(*args, **kwargs)

    vars(link)["Incoming"] = Noted
    for dim in (SMALL, given.dim):
        port = sys.stdin.readline().strip()
        meter.reset()
        join_one(given, dim, port, meter, begun)
    print(json.dumps(meter.laps), flush=True)


def join_one(
    given: argparse.Namespace, dim: int, port: str, meter: Meter, begun: list[float]
) -> None:
    """Work for a server."""
    from flowerpress.clients import client_app
    from flowerpress.transport.join import make_client

    def task_fn(i: int, n: int) -> Any:
        task = torch_task(dim) if given.task == "torch" else array_task(dim)
        for name in ("gradient", "gradient_into"):
            if hasattr(task, name):
                setattr(task, name, meter.timed("gradient", getattr(task, name)))
        return task

    config = {"state-store": given.store}
    node: Any = make_client(
        client_app(task_fn),
        f"127.0.0.1:{port}",
        None,
        0,
        node_config=config,
        state_dir=given.state,
    )
    answer = node._handle

    def handle(welcome: Any, question: Any) -> Any:
        if question.size > dim // 1000:  # and not one without a model
            meter.lap()
            meter.add("receive", time.perf_counter() - begun[0])
        return meter.timed("answer", answer)(welcome, question)

    node._handle = handle
    node.run()
    meter.lap()


# --- both -----------------------------------------------------------------------------------------


def measure(given: argparse.Namespace, tree: Path) -> dict[str, Any]:
    """Run a server and a client of the code in `tree`; return what they say."""
    words = [f"--{k}={v}" for k, v in vars(given).items() if k in _PASSED]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    begin = [sys.executable, str(HERE), *words]
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        pipe = subprocess.PIPE
        start = subprocess.Popen
        if given.vectors:
            env["FLOWERPRESS_VECTORS"] = given.vectors
        server = start([*begin, "--be=server"], stdout=pipe, text=True, env=env)
        more = [f"--state={folder}", "--be=client"]
        client = start([*begin, *more], stdin=pipe, stdout=pipe, text=True, env=env)
        assert server.stdout is not None
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            for _ in range(2):
                client.stdin.write(server.stdout.readline())
                client.stdin.flush()
            ledger, laps = map(json.loads, server.stdout.read().strip().splitlines())
            told = client.stdout.read()
        finally:
            for process in (server, client):
                if process.poll() is None:
                    process.kill()
                process.wait()
    return {"server": laps, "client": json.loads(told.splitlines()[-1]), **ledger}


def show(name: str, found: dict[str, Any]) -> None:
    """Print the figures of a run."""
    for who in ("server", "client"):
        for i, lap in enumerate(found[who]):
            text = "  ".join(f"{k} {v:g}{' d' if k in _MEMORY else ''}" for k, v in lap.items())
            print(f"{name} {who:<6} {'start  ' if i == 0 else f'round {i}'}  {text}")
    down, up = (f"{count / 1e6:.1f}" for count in found["ledger"])
    print(f"{name} sent down {down} MB, up {up} MB", flush=True)


def peak(laps: list[dict[str, float]]) -> float:
    """Return the largest peak of the rounds and of what was before them."""
    return max(lap["peak"] for lap in laps)


def tcp_goodput(count: int) -> float:
    """Return the bytes a second of plain TCP between two processes, one way, the best of three."""
    from benchmarks.link import over_tcp

    return 2 * count / min(over_tcp(1, count, 3))


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """Have the files of a commit in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE.parents[1]), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", str(tree), ref], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


_MEMORY = ("peak", "kept", "anon")
_PASSED = ("dim", "rounds", "strategy", "compressor", "downlink", "task", "init", "store")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=lambda text: int(float(text)), default=25_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategy", default="ef21-sgdm")
    parser.add_argument("--compressor", default="topk:0.01")
    parser.add_argument("--downlink", default="", help="compressor of the deltas; empty: dense")
    parser.add_argument("--task", choices=("array", "torch"), default="array")
    parser.add_argument("--init", choices=("dense", "compressed"), default="dense")
    parser.add_argument("--store", choices=("live", "disk"), default="live")
    parser.add_argument("--scratch", help="folder for the client's memory on disk")
    parser.add_argument("--vectors", help="folder for files that vectors are in, at both ends")
    parser.add_argument("--against", help="a commit to measure beside this one")
    parser.add_argument("--bars", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--tcp", action="store_true", help="compare the link with plain TCP")
    for name in ("--be", "--state"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.state:
        given.state = Path(given.state)
    if given.be:
        give_back_large_memory()
        {"server": serve, "client": join}[given.be](given)
        return 0
    tree = HERE.parents[1]
    tcp = tcp_goodput(4 * given.dim) if given.tcp else 0.0
    found = measure(given, tree)
    show("now", found)
    if given.against:
        with checked_out(given.against) as other:
            show(given.against, measure(given, other))
    return judge(given, found, tcp)


def judge(given: argparse.Namespace, found: dict[str, Any], tcp: float) -> int:
    """Print the bars, and return 1 where one is missed that counts."""
    client_bar = TORCH_BAR if given.task == "torch" else CLIENT_BAR
    # A compressed downlink is two vectors more at each end: what of g is known, and at the server
    # what is owed of it, at the client the model that deltas are added to.
    more = 2 * bool(given.downlink)
    bars = [
        (f"{who}, at most {bar + more:.1f} d", peak(found[who]), bar + more)
        for who, bar in (("client", client_bar), ("server", SERVER_BAR))
    ]
    missed = False
    for what, figure, bar in bars:
        missed |= figure > bar
        print(f"{'MISSED' if figure > bar else 'held'}: {what}: {figure:.2f} d")
    if tcp:
        seconds = min(lap["receive_s"] for lap in found["client"] if "receive_s" in lap)
        share = 4 * given.dim / max(seconds, 1e-3) / tcp
        missed |= share < GOODPUT_BAR
        verdict = "MISSED" if share < GOODPUT_BAR else "held"
        what = f"link at least {GOODPUT_BAR} of plain TCP"
        print(f"{verdict}: {what}: {share:.2f} of {tcp / 1e9:.2f} GB/s")
    return int(missed and given.bars)


if __name__ == "__main__":
    sys.exit(main())
