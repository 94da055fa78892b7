"""A ServerApp: FedAvg over the weights of a linear model, evaluated by the clients."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config, nodes = context.run_config, int(context.run_config["min-nodes"])
    arrays = ArrayRecord()
    arrays["coef"], arrays["intercept"] = Array(np.zeros((10, 64))), Array(np.zeros(10))
    strategy = FedAvg(
        fraction_evaluate=1.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    rounds = int(config["num-server-rounds"])
    result = strategy.start(grid, initial_arrays=arrays, num_rounds=rounds)
    accuracies = [each["accuracy"] for each in result.evaluate_metrics_clientapp.values()]
    told = {r: dict(record) for r, record in result.train_metrics_clientapp.items()}
    if config["out"]:
        text = json.dumps({"accuracy": accuracies, "train": told})
        Path(str(config["out"])).write_text(text, encoding="utf-8")
