"""The model, and a client's share of scikit-learn's digits."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

TEST = 360


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images):
        return self.head(self.features(images))


class Digits(Dataset):
    """Samples are dicts."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(labels))
    images = torch.tensor(images[order] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return images, torch.tensor(labels[order])


def test_loader():
    images, labels = digits()
    return DataLoader(Digits(images[:TEST], labels[:TEST]), batch_size=128)


def train_loader(partition, partitions, seed, server_round):
    """Shares by Dirichlet(0.5): each client has more of some classes."""
    images, labels = digits()
    images, labels = images[TEST:], labels[TEST:]
    rng = np.random.default_rng(seed)
    mine = []
    for digit in range(10):
        places = np.flatnonzero(labels.numpy() == digit)
        cuts = np.cumsum(rng.dirichlet([0.5] * partitions)) * len(places)
        mine += list(np.split(places, cuts[:-1].astype(int))[partition])
    mine = mine or [partition]
    order = torch.Generator().manual_seed(1000 * seed + 100 * partition + server_round)
    data = Digits(images[mine], labels[mine])
    return DataLoader(data, batch_size=16, shuffle=True, generator=order)


def train(model, loader, epochs, lr, momenta):
    """SGD with momentum, whose state goes on from round to round."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for parameter, momentum in zip(model.parameters(), momenta, strict=False):
        optimizer.state[parameter]["momentum_buffer"] = momentum
    model.train()
    losses = []
    for _ in range(epochs):
        for batch in loader:
            if len(batch["label"]) < 2:  # batch norm needs two
                continue
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
    states = [optimizer.state[p].get("momentum_buffer") for p in model.parameters()]
    momenta = [state for state in states if state is not None]
    return (sum(losses) / len(losses) if losses else 0.0), momenta


def test(model, loader):
    model.eval()
    with torch.no_grad():
        right = sum((model(b["image"]).argmax(1) == b["label"]).sum().item() for b in loader)
    return right / TEST
