"""A ServerApp whose strategy has a start() of its own: it warms up, and keeps the best model."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from heads_app.client import HIDDEN

app = ServerApp()


class Best(FedAvg):
    """A loop of one's own around FedAvg's parts."""

    def start(self, grid, initial_arrays, num_rounds):
        arrays, best, told = initial_arrays, (0.0, initial_arrays), []
        for number in range(1, num_rounds + 1):
            lr = 0.3 if number > 2 else 0.1
            asked = self.configure_train(number, arrays, ConfigRecord({"lr": lr}), grid)
            replies = grid.send_and_receive(messages=asked, timeout=600)
            arrays, metrics = self.aggregate_train(number, replies)
            told.append(dict(metrics))
            if metrics["own_accuracy"] > best[0]:
                best = metrics["own_accuracy"], arrays
        return best[1], told


@app.main()
def main(grid: Grid, context: Context) -> None:
    config, nodes = context.run_config, int(context.run_config["min-nodes"])
    body = 0.2 * np.random.default_rng(1).standard_normal((64, HIDDEN)).astype(np.float32)
    strategy = Best(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    best, told = strategy.start(
        grid, ArrayRecord({"body": Array(body)}), int(config["num-server-rounds"])
    )
    if config["out"]:
        accuracies = [each["own_accuracy"] for each in told]
        text = json.dumps({"accuracy": accuracies, "train": told, "best": list(best)})
        Path(str(config["out"])).write_text(text, encoding="utf-8")
