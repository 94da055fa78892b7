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
from flowerpress.protocol.files import remove_unfinished, write_atomically
from flowerpress.server.tree import CheckpointError, Tree, dump, load

_SAME = ("compressor", "memory", "downlink", "momentum", "dense", "seed", "clip_sent")
Channels = dict[tuple[str, str], Channel]


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
    remove_unfinished(path.parent, path.name)
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


def state(channels: Channels) -> Tree:
    """Return what channels know of nodes, and their replicas."""
    return [[*key, _state(channel)] for key, channel in channels.items()]


def _state(channel: Channel) -> dict[str, Any]:
    peers = [{**vars(peer), "receiver": asdict(peer.receiver)} for peer in channel.clients.values()]
    found: dict[str, Any] = {"peers": peers, "norm": channel.norm, "plan": None, "replica": None}
    if channel.broadcast is not None:
        found["plan"] = channel.broadcast.plan.to_json()
        found["replica"] = channel.broadcast.state()
    return found


def restored(tree: Tree, settings: Settings) -> Channels:
    """Return the channels that `state` told of."""
    channels = {}
    for name, digest, fields in tree:
        channel = channels[name, digest] = Channel(settings, norm=fields["norm"])
        for each in fields["peers"]:
            peer = Peer(**{**each, "receiver": Receiver(**each["receiver"])})
            channel.clients[peer.id] = peer
        if fields["plan"] is not None:
            plan, replica = Plan.from_json(fields["plan"]), fields["replica"]
            x = replica["followed"]
            channel.broadcast = Broadcast(plan, x, settings.downlink, settings.seed)
            channel.broadcast.restore(replica)
    return channels
