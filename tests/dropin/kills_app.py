"""A pressed app that is killed: its loop saves the model, the grid saves what clients owe."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from flowerpress.dropin import press_grid
from tests.dropin import apps

ROUNDS, N, PAUSE = 60, 3, 0.05
run_config = {"checkpoint": "", "resume": False, "folder": "", "memory": "ef14", "downlink": ""}


def slowly(arrays: dict[str, np.ndarray], i: int, r: int) -> dict[str, np.ndarray]:
    time.sleep(PAUSE)
    return apps.towards(arrays, i, r)


client_app = apps.client_app(slowly)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left, of as many clients as answer."""
    config, folder = context.run_config, Path(str(context.run_config["folder"]))
    model, told = folder / "model.npz", folder / "told.jsonl"
    pressed = press_grid(
        grid,
        "topk:0.2",
        memory=str(config["memory"]),
        downlink=str(config["downlink"]),
        checkpoint=str(folder / "grid"),
        resume=True,
    )
    x, first = apps.start(), 1
    if model.exists():
        with np.load(model) as found:
            x = apps.record({key: found[key] for key in x})
            first = int(found["round"]) + 1
    for number in range(first, ROUNDS + 1):
        asked = [
            Message(
                RecordDict({"arrays": x, "config": ConfigRecord({"server-round": number})}),
                node,
                "train",
            )
            for node in pressed.get_node_ids()
        ]
        answers = [m for m in pressed.send_and_receive(asked, timeout=20) if m.has_content()]
        if answers:
            arrays = [answer.content["arrays"] for answer in answers]
            x = apps.record({key: np.mean([a[key].numpy() for a in arrays], 0) for key in x})
        new = folder / "new.npz"
        np.savez(new, round=number, **{key: x[key].numpy() for key in x})
        new.replace(model)
        with told.open("a") as file:
            row = {"round": number, "answers": len(answers), "up": pressed.ledger.up_payload}
            file.write(json.dumps({**row, "refused": pressed.refused}) + "\n")
