"""What a pressed grid knows, as one file: a server that is started again goes on from there.

Questions that were open are not in it: their answers count as lost, and are owed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowerpress.compressors.feedback import Receiver
from flowerpress.dropin.arrays import Plan
from flowerpress.dropin.peers import Channel, Peer
from flowerpress.dropin.replica import Broadcast
from flowerpress.dropin.settings import Settings
from flowerpress.protocol.files import sweep, write_atomically
from flowerpress.server.tree import CheckpointError, Tree, dump, load

_SAME = ("compressor", "memory", "downlink", "momentum", "dense", "seed", "clip_sent")
Broadcasts = dict[tuple[str, str], Broadcast]


def save(path: Path, tree: Tree) -> None:
    """Replace the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump(tree))


def find(path: Path, settings: Settings, *, resume: bool) -> Tree:
    """Return what a file holds; None where it is not there.

    Raises
    ------
    CheckpointError
        It is there and `resume` is not set, is damaged, or is of a run with other options.
    """
    sweep(path.parent, path.name)
    if not path.exists():
        return None
    if not resume:
        raise CheckpointError(
            f"{path} holds the state of a pressed run: go on from it with resume=True, or name "
            "another file"
        )
    found = load(path)
    for name, value in found["settings"].items():
        if value != getattr(settings, name):
            raise CheckpointError(
                f"{path} is of a run with {name} = {value!r}, this one has "
                f"{getattr(settings, name)!r}: resume it as it was started, or name another file"
            )
    return found


def settings_of(settings: Settings) -> dict[str, Any]:
    """Return the options that a resumed run must have too."""
    return {name: getattr(settings, name) for name in _SAME}


def channels_state(channels: dict[str, Channel]) -> Tree:
    """Return what channels know of nodes."""
    return {
        name: {
            "skip": channel.skip,
            "dtypes": channel.dtypes,
            "peers": [_peer_state(peer) for peer in channel.clients.values()],
        }
        for name, channel in channels.items()
    }


def _peer_state(peer: Peer) -> dict[str, Any]:
    return {**vars(peer), "receiver": asdict(peer.receiver)}


def restored_channels(tree: Tree, settings: Settings) -> dict[str, Channel]:
    """Return the channels that `channels_state` told of."""
    channels = {}
    for name, state in tree.items():
        channel = Channel(settings, dtypes=state["dtypes"], skip=state["skip"])
        for fields in state["peers"]:
            peer = Peer(**{**fields, "receiver": Receiver(**fields["receiver"])})
            channel.clients[peer.id] = peer
        channels[name] = channel
    return channels


def broadcasts_state(broadcasts: Broadcasts) -> Tree:
    """Return what replicas are."""
    return [[*key, each.plan.to_json(), each.state()] for key, each in broadcasts.items()]


def restored_broadcasts(tree: Tree, settings: Settings) -> Broadcasts:
    """Return the replicas that `broadcasts_state` told of."""
    found = {}
    for name, digest, text, state in tree:
        plan = Plan.from_json(text)
        each = Broadcast(plan, state["followed"], settings.downlink, settings.seed)
        each.restore(state)
        found[name, digest] = each
    return found
