"""What an algorithm says for itself: a round, and what the server must know around it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from flowerpress.protocol import Hello, Hyper
from flowerpress.server.ask import Steps
from flowerpress.server.client import Client
from flowerpress.server.downlink import Downlink
from flowerpress.server.ladder import Ladder
from flowerpress.server.options import Option


class Algorithm:
    """The part of a strategy that differs from algorithm to algorithm."""

    name: ClassVar[str]
    summary_line: ClassVar[str] = ""  # for `flowerpress list`; empty: the docstring's first line
    citation: ClassVar[str] = ""  # of the paper
    rule: ClassVar[str] = "step"  # what a step does to the model, see `flowerpress.protocol.rules`
    dense: ClassVar[bool] = False  # whether it takes no compressor
    shared: ClassVar[bool] = False  # whether workers and server must agree on a state
    contractive: ClassVar[bool] = False  # whether the uplink's compressor must be a contraction
    owing: ClassVar[bool] = False  # whether an update may hold what was owed for many rounds
    baseline: ClassVar[str] = "fedavg"  # the strategy that does the same uncompressed
    init_all = False  # whether all workers are asked to start, whatever sample is drawn
    correlates = False  # whether the workers' compressors round against each other
    num_rounds = 0  # of the run, 0 where it is not known
    downlink = ""  # the model is sent dense, unless an algorithm has the option
    feedback = "ef"  # the memory that it has is in use, unless an algorithm has the option
    # Options of all strategies, see `CompressedStrategy`.
    options: ClassVar[Mapping[str, Option]]
    seed: int
    compressor: str
    ladder: Ladder | None
    client_compressors: bool
    weights: str
    max_weight: float
    max_scale: float
    fraction_train: float
    min_available_nodes: int
    available_timeout: float
    hello_timeout: float
    configrecord_key: str
    grid: Grid

    @property
    def compressors(self) -> tuple[str, ...]:
        """The compressors that the strategy tells its workers to use."""
        return (self.compressor,) if self.ladder is None else self.ladder.steps

    @property
    @abstractmethod
    def model(self) -> Downlink:
        """The server's model."""

    @abstractmethod
    def hyper(self) -> Hyper:
        """Return the hyperparameters the workers need."""

    def admit(self, hello: Hello) -> None:
        """Raise `ValueError` for a worker that cannot take part, saying why."""

    def network(self, nodes: Iterable[int]) -> str:
        """Say who talks with whom, without a server; `ValueError` where no such network is."""
        del nodes
        return ""

    def begin(self) -> None:
        """Make the algorithm's buffers; `model` is there."""

    @abstractmethod
    def round(self, server_round: int) -> Steps:
        """Take the model from x^{r-1} to x^r, line by line as in the paper.

        A generator: it yields each question to the workers (`flowerpress.server.ask.Ask`), and
        goes on with the list of those whose answers went in, by id. Where there is none it ends
        there. `hyper` is read when a question is yielded.
        """

    def needed(self, at_least: int) -> int:
        """Return how many workers must be there for a round that asks at least so many."""
        return max(self.min_available_nodes, at_least, 1)

    def disagree(self, client: Client, server_round: int) -> bool:
        """Hear that a worker's state is not the one shared with it; whether all must start over.

        It is called for `shared` algorithms only.
        """
        return client.may_restart_all(server_round)

    def conclude(self, server_round: int, grid: Grid) -> ArrayRecord | None:
        """End a run that `should_stop` stops after this round; returns the model if it changed."""

    def local_models(self) -> Iterator[tuple[int, ArrayRecord]]:
        """Yield the workers' own models collected in this round, by id, where they have some."""
        return iter(())

    def forget(self) -> None:
        """Forget what is shared with the workers (`shared` algorithms only)."""
