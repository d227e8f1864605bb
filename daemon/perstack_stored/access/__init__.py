"""Who may connect and what a peer may do: rules, CURVE keys, rates, and the identity of a peer.

Entry points: `rules.rules_of`, `peers.Peers`. Invariant: in doubt, access is refused; the identity comes from
the kernel or from the peer's key, never from what the peer says.

Imports: `protocol`, `config`, `model`. Imported by the packages of the server.
"""
