"""Apps of Flower's older kind: `server_fn` and `client_fn`, and workflows of a `LegacyContext`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp import Grid, ServerApp

from flowerpress.simulations.engine import InProcessGrid
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.transport import Service
from flowerpress.transport.status import describe_server

from .linked import QUICK, run_in_thread, start_client


class Adder(NumPyClient):
    """Adds 1 plus its own number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fit(self, parameters: Any, config: Any) -> Any:
        return [parameters[0] + 1 + self.number], 1, {}

    def evaluate(self, parameters: Any, config: Any) -> Any:
        return float(parameters[0].sum()), 1, {}


client_app = ClientApp(
    client_fn=lambda context: Adder(int(context.node_config["partition-id"])).to_client()
)


class Seen(FedAvg):
    """Keeps what it has aggregated."""

    def __init__(self) -> None:
        initial = ndarrays_to_parameters([np.zeros(3)])
        super().__init__(initial_parameters=initial, min_available_clients=2)
        self.losses: list[float] = []

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        assert not failures
        found = super().aggregate_evaluate(server_round, results, failures)
        self.losses.append(found[0])
        return found


def apps(strategy: Seen) -> dict[str, ServerApp]:
    config = ServerConfig(num_rounds=3)
    by_function = ServerApp(
        server_fn=lambda context: ServerAppComponents(strategy=strategy, config=config)
    )
    by_workflow = ServerApp()

    @by_workflow.main()
    def main(grid: Grid, context: Context) -> None:
        DefaultWorkflow()(grid, LegacyContext(context=context, config=config, strategy=strategy))

    return {"server_fn": by_function, "workflow": by_workflow}


@pytest.mark.parametrize("kind", ["server_fn", "workflow"])
@pytest.mark.parametrize("engine", ["link", "process"])
def test_apps_of_the_older_kind_run(kind: str, engine: str) -> None:
    strategy = Seen()
    app = apps(strategy)[kind]
    if engine == "link":
        service = Service("127.0.0.1:0", None, 2, limits=QUICK)
        clients = [start_client(service.port, client_app, i) for i in range(2)]
        run_in_thread(lambda: service.run(app)).result(60)
        assert [farewell.result(30).done for _, farewell in clients] == [True, True]
        # The app tells nothing of its rounds: they are counted by its messages.
        report = service.report()
        rounds, exchanges = report["rounds"], report["exchanges"]
        assert [each["round"] for each in rounds] == [1, 2, 3]
        for name in ("down_bytes", "up_bytes", "seconds"):
            told = sum(each[name] for each in rounds)
            assert 0 < told <= sum(each[name] for each in exchanges) + 1e-9
        told = describe_server(service)
        assert "round 3 " in told
        assert " since this start down " in told  # a server that was resumed has not all bytes
        service.grid.note_round(RoundRecord(4, {"loss": 0.25, "by class": [1.0]}, {}, 0, 0, 1.0))
        service.grid.note_round(RoundRecord(5, {}, {}, 0, 0, 1.0))  # not evaluated
        assert " · round 5 · loss 0.25 · " in describe_server(service)
    else:
        with InProcessGrid(lambda: client_app, 2) as grid:
            app(grid, Context(grid.run_id, 1, {}, RecordDict(), {}))
    assert strategy.losses == [4.5, 9.0, 13.5]  # a round adds 1.5 to each of three numbers
