"""A server that is started again goes on from its file: what clients owe stays owed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from flowerpress.dropin import press, press_grid
from flowerpress.server.tree import dump, load
from flowerpress.simulations.engine import InProcessGrid
from tests.dropin.apps import client_app, distance, record, start


def rounds(grid, x, numbers):
    """A loop of one's own, whose model is saved by whoever runs it."""
    for r in numbers:
        config = ConfigRecord({"server-round": r})
        messages = [
            Message(RecordDict({"arrays": x, "config": config}), node, "train")
            for node in grid.get_node_ids()
        ]
        answers = [m for m in grid.send_and_receive(messages, timeout=5) if m.has_content()]
        arrays = [answer.content["arrays"] for answer in answers]
        x = record({k: np.mean([each[k].numpy() for each in arrays], 0) for k in x})
    return x


@pytest.mark.parametrize("downlink", ["", "topk:0.3"])
@pytest.mark.parametrize("memory", ["ef14", "ef21", "ef21-sgdm"])
def test_a_restart_changes_no_bit(tmp_path, memory, downlink):
    """The same model as without it, and as many bytes: nobody starts over."""
    options = {"memory": memory, "downlink": downlink}
    with InProcessGrid(client_app, 3, threads=1) as grid:
        whole = press_grid(grid, "topk:0.2", **options)
        expected = rounds(whole, start(), range(1, 13))
    saved = {**options, "checkpoint": str(tmp_path / "grid")}
    with InProcessGrid(client_app, 3, threads=1) as grid:
        first = press_grid(grid, "topk:0.2", **saved)
        x = rounds(first, start(), range(1, 6))
        second = press_grid(grid, "topk:0.2", **saved, resume=True)
        x = rounds(second, x, range(6, 13))
    for name, array in expected.items():
        np.testing.assert_array_equal(x[name].numpy(), array.numpy())
    payload = first.ledger.up_payload + second.ledger.up_payload
    assert payload == whole.ledger.up_payload
    assert second.ledger.down_payload + first.ledger.down_payload == whole.ledger.down_payload
    assert second.refused == 0


def test_without_a_file_clients_forget_what_they_owed():
    with InProcessGrid(client_app, 3, threads=1) as grid:
        x = rounds(press_grid(grid, "topk:0.2", memory="ef21"), start(), range(1, 20))
        x = rounds(press_grid(grid, "topk:0.2", memory="ef21"), x, range(20, 50))
    assert distance({k: v.numpy() for k, v in x.items()}, 3) < 0.1


def press_first(message, context, call_next):
    """Only client 0 has the mod."""
    if context.node_config["partition-id"] == 0:
        return press(message, context, call_next)
    return call_next(message, context)


def test_counts_go_on(tmp_path):
    """Also from a file of a release that did not keep them all."""
    file = tmp_path / "grid"
    with InProcessGrid(lambda: client_app(mods=[press_first]), 3, threads=1) as grid:
        first = press_grid(grid, "topk:0.2", checkpoint=str(file))
        x = rounds(first, start(), range(1, 4))
        assert first.unpressed == 6
        second = press_grid(grid, "topk:0.2", checkpoint=str(file), resume=True)
        rounds(second, x, range(4, 6))
        assert second.unpressed == 10
        tree = load(file)
        del tree["unpressed"]
        file.write_bytes(dump(tree))
        third = press_grid(grid, "topk:0.2", checkpoint=str(file), resume=True)
        assert third.unpressed == 0


def test_a_file_is_of_one_run(tmp_path):
    file = tmp_path / "new" / "grid"
    saved = {"checkpoint": str(file)}
    with InProcessGrid(client_app, 2) as grid:
        rounds(press_grid(grid, "topk:0.2", **saved, resume=True), start(), range(1, 3))
        with pytest.raises(ValueError, match=r"holds the state of a pressed run: .*resume=True"):
            press_grid(grid, "topk:0.2", **saved)
        with pytest.raises(ValueError, match=r"is of a run with compressor = 'topk:0.2'"):
            press_grid(grid, "sign", **saved, resume=True)
        with pytest.raises(ValueError, match="True where checkpoint is given"):
            press_grid(grid, "sign", resume=True)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read"):
            press_grid(grid, "topk:0.2", **saved, resume=True)
    assert [each.name for each in file.parent.iterdir()] == ["grid"]
