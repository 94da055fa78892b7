"""What a client whose model is on a device copies between it and the host in a step.

    python -m benchmarks.device_client                  # 4 million numbers, in half a minute
    python -m benchmarks.device_client --dim 1e8        # for a GPU
    python -m benchmarks.device_client --compressor sign --downlink ''

One client with its memory in its process, EF21-SGDM, with its vectors on the device and then with
them on the host. Where torch finds a CUDA device it is that; elsewhere tensors on the CPU take the
same way (``FLOWERPRESS_TORCH=1``), where "copied" is what would be copied, and seconds say nothing
about a GPU. Steps are counted from the third on: the first message is whole.

Bars: both runs end with one model; with the vectors on the device, no more than `COPIES` times the
bytes of the packets are copied, each way, and to the device the model where it comes whole, and
what is decoded of a packet that is not sparse. Exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

COPIES = 6  # times a packet's bytes: what is chosen is looked at, and places are sent as 32 bits
WARM = 2  # steps


class Meter:
    """Bytes that are copied to the host and to the device, and the client's steps."""

    def __init__(self) -> None:
        self.bytes = {"host": 0, "device": 0}
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count, for as long as this lasts."""
        import torch

        from flowerpress.worker.worker import Worker

        undo = [
            *(self._wrap(torch.Tensor, name, "host") for name in ("cpu", "item", "tolist")),
            *(self._wrap(torch, name, "device") for name in ("tensor", "from_numpy")),
        ]
        answer = Worker.answer

        def timed(worker: Worker, job: Any) -> Any:
            before, begun = dict(self.bytes), time.perf_counter()
            reply = answer(worker, job)
            step = {way: float(now - before[way]) for way, now in self.bytes.items()}
            seconds = time.perf_counter() - begun
            self.steps.append({**step, "seconds": seconds, "up": float(reply.payload)})
            return reply

        place: Any = Worker
        place.answer = timed
        try:
            yield
        finally:
            place.answer = answer
            for each in undo:
                each()

    def _wrap(self, owner: Any, name: str, way: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def counting(values: Any, *args: Any, **kwargs: Any) -> Any:
            self.bytes[way] += int(getattr(values, "nbytes", 8))
            return original(values, *args, **kwargs)

        setattr(owner, name, counting)
        return lambda: setattr(owner, name, original)

    def median(self, name: str) -> float:
        """Return the median over the steps that count."""
        return float(np.median([step[name] for step in self.steps[WARM:]]))


def run(options: argparse.Namespace, target: str, on: bool) -> tuple[Meter, float, Any]:
    """Return what was counted, the bytes of a round's deltas, and the model at the end."""
    import torch

    from flowerpress.clients import TorchTask
    from flowerpress.simulations import simulate
    from flowerpress.strategies import make_strategy

    os.environ["FLOWERPRESS_TORCH"] = str(int(on))
    wide = max(1, int(options.dim) // 256)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((256, 128), dtype=np.float32), np.arange(256) % 128

    def task_fn(client: int, _: int) -> TorchTask:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(128, wide, bias=False),
            torch.nn.Tanh(),
            torch.nn.Linear(wide, 128, bias=False),
        )
        loss = torch.nn.CrossEntropyLoss()
        return TorchTask(model, loss, data, batch_size=16, device=target)

    own = {"downlink": options.downlink} if options.downlink else {}
    name = "ef21" if options.downlink else "ef21-sgdm"
    strategy = make_strategy(name, compressor=options.compressor, lr=0.1, **own)
    meter = Meter()
    with meter.measuring():
        result = simulate(strategy, task_fn, 1, options.rounds + WARM, threads=1)
    down = [row.payload for row in result.ledger.rows if row.direction == "down"]
    model = np.concatenate([array.numpy().ravel() for array in result.arrays.values()])
    return meter, float(np.median(down[-options.rounds :])), model


def main(words: list[str] | None = None) -> int:
    """Measure, print, and return 1 where a bar is missed."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dim", type=float, default=4e6, help="numbers of the model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compressor", default="topk:0.001")
    parser.add_argument("--downlink", default="topk:0.001", help="'': the model comes whole")
    options = parser.parse_args(words)
    target = "cuda" if torch.cuda.is_available() else "cpu"
    before = os.environ.get("FLOWERPRESS_TORCH")
    try:
        found = {on: run(options, target, on) for on in (True, False)}
    finally:
        os.environ.pop("FLOWERPRESS_TORCH")
        if before is not None:
            os.environ["FLOWERPRESS_TORCH"] = before
    dense = 4.0 * found[True][2].size
    what = torch.cuda.get_device_name() if target == "cuda" else "the CPU, on the way of a device"
    print(f"{found[True][2].size:,} numbers ({dense / 1e6:.1f} MB) on {what}")
    print(f"{'vectors':10}{'to host, MB':>14}{'to device, MB':>15}{'packets, MB':>14}{'ms':>9}")
    for on, (meter, down, _) in found.items():
        up = meter.median("up")
        print(
            f"{'device' if on else 'host':10}{meter.median('host') / 1e6:14.3f}"
            f"{meter.median('device') / 1e6:15.3f}{(up + down) / 1e6:14.3f}"
            f"{1e3 * meter.median('seconds'):9.1f}"
        )
    return judge(found, dense, options)


def judge(found: dict[bool, Any], dense: float, options: argparse.Namespace) -> int:
    """Print the bars; returns 1 where one is missed."""
    meter, down, model = found[True]
    up = meter.median("up")
    sparse = "topk" in options.compressor or "randk" in options.compressor
    whole = dense * (not options.downlink) + dense * (not sparse)
    bars = {
        "one model": np.array_equal(model, found[False][2]),
        f"to the host at most {COPIES} times the packet": meter.median("host") <= COPIES * up,
        "to the device no more than it needs": (
            meter.median("device") <= whole + COPIES * (up + down * bool(options.downlink))
        ),
    }
    for bar, met in bars.items():
        print(f"{'met' if met else 'MISSED':7} {bar}")
    return int(not all(bars.values()))


if __name__ == "__main__":
    sys.exit(main())
