"""What outlives a crash of the simulated machine."""

from random import Random
from typing import NamedTuple

from tests.simulation.clients import Client, Ledger
from tests.simulation.disk import Disk


class CrashedError(Exception):
    """The daemon ended: writing the journal failed, or the start did. The machine goes on."""


class Besides(NamedTuple):
    """What there is in a life besides stores.

    Attributes:
        reads: how many reads.
        ages_jobs: old jobs leave the tree.
        retires: retention deletes jobs that have ended, and somebody asks for jobs that have left the tree.
    """

    reads: int = 0
    ages_jobs: bool = False
    retires: bool = False


class State:
    """What outlives a crash: the disk, the commits of the index, the clients, and what is known of them."""

    def __init__(
        self, disk: Disk, index_states: list[bytes | None], clients: list[Client], ledger: Ledger
    ) -> None:
        self.disk = disk
        self.index_states = index_states  # oldest first; the last one is what a kill leaves
        self.clients = clients
        self.ledger = ledger

    def after_kill(self) -> "State":
        """A copy, as after a kill of all processes."""
        clients = [client.copy() for client in self.clients]
        return State(self.disk.copy(), self.index_states[-1:], clients, self.ledger.copy())

    def after_power_cut(self, random: Random, disk: Disk | None = None) -> "State":
        """A copy, as after a power cut."""
        state = random.choice([*self.index_states, self.index_states[-1], None])
        if state is not None and random.random() < 0.05:
            state = random.choice([b"", bytes(4096) + state[4096:], random.randbytes(4096) + state[4096:]])
        clients = [client.copy() for client in self.clients]
        return State((disk or self.disk).after_power_cut(random), [state], clients, self.ledger.copy())
