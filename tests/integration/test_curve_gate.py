"""The gate of tcp fails closed: with a part of it taken out, nobody is let in."""

from collections.abc import Iterator

import pytest
import zmq

from perstack_stored.access.curve_keys import Access, KeyPair, ListedClient
from perstack_stored.access.rules import AccessRules
from perstack_stored.errors import GateFailedError
from perstack_stored.transport import binding
from perstack_stored.transport.zap import ZapHandler
from tests.helpers.daemon import eventually
from tests.helpers.ports import free_port

PAIR, CLIENT = KeyPair(*zmq.curve_keypair()), KeyPair(*zmq.curve_keypair())
LISTED = AccessRules(clients={CLIENT.public.decode(): ListedClient("c", Access.WRITE)})


class _Failing(AccessRules):
    """Rules that can't be asked."""

    def of_key(self, key: str) -> ListedClient | None:
        raise RuntimeError("broken")


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


Bound = tuple["zmq.Socket[bytes]", str, ZapHandler | None]


def bound(context: "zmq.Context[zmq.Socket[bytes]]", rules: AccessRules | None) -> Bound:
    """A router on tcp, its endpoint, and with rules the gate before it."""
    router = context.socket(zmq.ROUTER)
    router.handshake_ivl = 1000
    gate = None if rules is None else ZapHandler(context, router, rules)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    binding.bind_tcp(router, endpoint, curve=PAIR)
    return router, endpoint, gate


def is_heard(router: "zmq.Socket[bytes]", endpoint: str, seconds: float) -> bool:
    """Whether anything of a client on the list comes through."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.curve_serverkey, client.curve_publickey, client.curve_secretkey = PAIR.public, *CLIENT
        client.connect(endpoint)
        client.send(b"hello")
        return bool(router.poll(int(seconds * 1000)))


def test_with_its_gate_a_listed_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """The tests below take something away from this."""
    router, endpoint, gate = bound(context, LISTED)
    assert gate is not None
    assert is_heard(router, endpoint, 20)
    gate.check()
    router.close()
    gate.stop()


def test_without_a_gate_no_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Libzmq alone would take any key then."""
    router, endpoint, _ = bound(context, None)
    assert not is_heard(router, endpoint, 2.5)


def test_with_an_empty_list_no_client_is_admitted(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    for rules in (AccessRules(), AccessRules(clients={})):
        made = zmq.Context()
        router, endpoint, gate = bound(made, rules)
        assert gate is not None
        assert not is_heard(router, endpoint, 2.5)
        router.close()
        gate.stop()
        made.term()


def test_a_gate_whose_rules_break_lets_nobody_in_and_says_so(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    """The daemon asks it each second, and ends: a daemon that admits no client any more must be restarted."""
    router, endpoint, gate = bound(context, _Failing(clients={}))
    assert gate is not None
    gate.check()
    assert not is_heard(router, endpoint, 2.5)

    def fails() -> bool:
        try:
            gate.check()
        except GateFailedError:
            return True
        return False

    eventually(fails, "the gate is known to have failed")
    assert not is_heard(router, endpoint, 2.5)
    router.close()
    gate.stop()


def test_a_gate_that_was_stopped_lets_nobody_in(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    router, endpoint, gate = bound(context, LISTED)
    assert gate is not None
    gate.stop()
    assert not is_heard(router, endpoint, 2.5)
    with pytest.raises(GateFailedError):
        gate.check()
