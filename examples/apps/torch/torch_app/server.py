"""A ServerApp: FedAvg, a step size that falls with the rounds, and an evaluation here."""

import json
import math
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from torch_app.task import Net, test, test_loader

app = ServerApp()


class Cosine(FedAvg):
    """FedAvg that tells the clients a step size of the round."""

    def __init__(self, lr, rounds, **options):
        super().__init__(**options)
        self.lr, self.rounds = lr, rounds

    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] = self.lr * (1 + math.cos(math.pi * (server_round - 1) / self.rounds)) / 2
        return super().configure_train(server_round, arrays, config, grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    torch.manual_seed(int(config["seed"]))
    rounds, nodes = int(config["num-server-rounds"]), int(config["min-nodes"])
    accuracies = []

    def evaluate(server_round, arrays):
        model = Net()
        model.load_state_dict(arrays.to_torch_state_dict())
        accuracies.append(test(model, test_loader()))
        return MetricRecord({"accuracy": accuracies[-1]})

    strategy = Cosine(
        float(config["lr"]),
        rounds,
        fraction_evaluate=0.0,
        min_train_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord(),
        num_rounds=rounds,
        evaluate_fn=evaluate,
    )
    told = {r: dict(record) for r, record in result.train_metrics_clientapp.items()}
    if config["out"]:
        text = json.dumps({"accuracy": accuracies, "train": told})
        Path(str(config["out"])).write_text(text, encoding="utf-8")
