"""Resident memory of a client on an edge device: a process of its own, a model of 1 M parameters.

    python benchmarks/edge_memory.py                # numpy kernels and numba's
    python benchmarks/edge_memory.py --hidden 5040  # 4 M parameters

The process imports what a client that joins over the gRPC link imports, and answers EF21-SGDM's
instructions with top-1 % through the ClientApp. Its data are files. The server's half (the model
and the mean of the gradients, two vectors) is in the same process and in the figures. Exits with 1
if a client with numpy kernels needs 200 MB or more, or has imported torch or numba.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT = 200 * 10**6
DIM, CLASSES, EXAMPLES = 784, 10, 2000
HEAVY = ("torch", "numba", "llvmlite", "matplotlib", "sklearn", "scipy", "pandas", "ray")
ALGORITHM, COMPRESSOR, LR = "ef21-sgdm", "topk:0.01", 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=1260)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--client", type=json.loads, help="be the client, with these settings")
    given = parser.parse_args()
    if given.client is not None:
        print(json.dumps(client(rounds=given.rounds, hidden=given.hidden, **given.client)))
        return 0
    print("| kernels | parameters | imports | rounds: peak | a round | of the heavy packages |")
    print("|---------|-----------:|--------:|-------------:|--------:|-----------------------|")
    figures = {}
    for kernels in ("numpy", "numba"):
        row = figures[kernels] = measure(kernels, given.hidden, given.rounds)
        print(
            f"| {kernels:<7} | {row['parameters']:>10,} | {row['imports'] / 1e6:4.0f} MB "
            f"| {row['peak'] / 1e6:9.0f} MB | {1e3 * row['seconds']:4.0f} ms "
            f"| {', '.join(row['heavy']) or 'none':<21} |"
        )
    plain = figures["numpy"]
    return int(plain["peak"] >= LIMIT or bool(plain["heavy"]))


def measure(kernels: str, hidden: int, rounds: int) -> dict[str, Any]:
    """Run a client in a process of its own; return what it says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        settings = {"folder": folder, "hyper": instructed()}
        command = [sys.executable, __file__, "--client", json.dumps(settings)]
        done = subprocess.run(
            [*command, "--hidden", str(hidden), "--rounds", str(rounds)],
            env={**os.environ, "FLOWERPRESS_KERNELS": kernels},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def write_data(folder: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((EXAMPLES, DIM), np.float32))
    np.save(folder / "y.npy", np.arange(EXAMPLES) % CLASSES)


def instructed() -> dict[str, Any]:
    """Return the hyperparameters that the strategy sends; a client does not import it."""
    from flowerpress.strategies import make_strategy

    return dict(make_strategy(ALGORITHM, compressor=COMPRESSOR, lr=LR).hyper())


def client(folder: str, hyper: dict[str, Any], hidden: int, rounds: int) -> dict[str, Any]:
    """Answer `rounds` instructions, as a client that joined would."""
    import grpc  # noqa: F401  (what the link needs)
    import numpy as np
    from flwr.app import Message

    import flowerpress.cli
    import flowerpress.transport.certs  # noqa: F401
    from flowerpress.compressors import add_to, make_compressor
    from flowerpress.protocol import Instruction, Layout, ModelPart, Reply
    from flowerpress.simulations import InProcessGrid
    from flowerpress.simulations.flower_app import client_app
    from flowerpress.simulations.tasks import make_task_fn

    imports = resident("VmHWM")
    options = {"dim": DIM, "classes": CLASSES, "hidden": hidden}
    arrays = make_task_fn("npy", **options).initial_arrays()
    layout = Layout.of(arrays)
    x, _ = layout.flatten(arrays)
    del arrays
    mean = np.zeros_like(x)
    grid = InProcessGrid(
        lambda: client_app,
        1,
        node_config={"path": folder},
        run_config={"task": "npy", "seed": 0, **options},
    )
    begin = 0.0
    for number in range(1, rounds + 1):
        if number == 2:  # the first reads the data, and compiles what is to be compiled
            begin = time.perf_counter()
        model = ModelPart.snapshot(number - 1, [make_compressor("identity").compress(x).data])
        order = Instruction(
            ALGORITHM, number, number, 0, layout.digest, hyper, model, applied=number - 1
        )
        asked = Message(order.encode(), dst_node_id=2, message_type="train")
        (answer,) = grid.send_and_receive([asked])
        reply = Reply.decode(answer.content)
        if reply.status != "update":
            raise RuntimeError(reply.reason)
        add_to(reply.packets[0], mean)
        x -= np.float32(LR) * mean
    grid.close()
    return {
        "parameters": layout.dim,
        "imports": imports,
        "peak": resident("VmHWM"),
        "seconds": (time.perf_counter() - begin) / max(rounds - 1, 1),
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


def resident(field: str) -> int:
    """Return a size in /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


if __name__ == "__main__":
    sys.exit(main())
