"""A ClientApp around scikit-learn's LogisticRegression, which is fitted and not stepped."""

import warnings

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

app = ClientApp()


def model_of(arrays):
    """A model with the weights and biases of a message."""
    model = LogisticRegression(max_iter=1, warm_start=True, C=0.1)
    model.classes_ = np.arange(10)
    model.coef_, model.intercept_ = (arrays[key].numpy().copy() for key in ("coef", "intercept"))
    return model


def share(context: Context):
    """This client's digits, and those that it evaluates on."""
    images, labels = load_digits(return_X_y=True)
    i, n = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    mine = np.arange(i, len(labels), n)
    cut = len(mine) * 4 // 5
    return images[mine[:cut]] / 16, labels[mine[:cut]], images[mine[cut:]] / 16, labels[mine[cut:]]


@app.train()
def train(message: Message, context: Context) -> Message:
    model = model_of(message.content["arrays"])
    images, labels, _, _ = share(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one step at a time
        model.fit(images, labels)
    arrays = ArrayRecord()
    arrays["coef"], arrays["intercept"] = Array(model.coef_), Array(model.intercept_)
    metrics = MetricRecord(
        {"num-examples": len(labels), "fitted": float(model.score(images, labels))}
    )
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    model = model_of(message.content["arrays"])
    _, _, images, labels = share(context)
    score = {"accuracy": float(model.score(images, labels)), "num-examples": len(labels)}
    return Message(RecordDict({"metrics": MetricRecord(score)}), reply_to=message)
