"""A ClientApp: a loop of one's own, a mod, and momentum that is kept between rounds."""

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from torch_app.task import Net, train, train_loader


def seconds(message, context, call_next):
    """A mod that adds a metric."""
    start = time.perf_counter()
    reply = call_next(message, context)
    if reply.has_content() and "metrics" in reply.content:
        reply.content["metrics"]["seconds"] = time.perf_counter() - start
    return reply


app = ClientApp(mods=[seconds])


@app.train()
def train_fn(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    config, own = message.content["config"], context.node_config
    partition, partitions = int(own["partition-id"]), int(own["num-partitions"])
    seed, number = int(context.run_config["seed"]), int(config["server-round"])
    loader = train_loader(partition, partitions, seed, number)
    kept = context.state.array_records.get("momentum")
    momenta = [torch.tensor(array.numpy()) for array in kept.values()] if kept else []
    epochs = int(context.run_config["local-epochs"])
    loss, momenta = train(model, loader, epochs, float(config["lr"]), momenta)
    context.state["momentum"] = ArrayRecord([momentum.numpy() for momentum in momenta])
    metrics = {"train_loss": loss, "num-examples": len(loader.dataset), "momenta": len(momenta)}
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)
