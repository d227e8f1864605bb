"""Access: which peers may connect and what each may do: rules, CURVE keys, rates, identities.

Entry points: `rules.rules_of`, `peers.Peers`. Invariant: in doubt, access is refused; the identity comes from
the kernel or from the peer's key, never from what the peer says.

Imports: `protocol`, `config`, `model`, `observe`. Imported by the packages of the server.
"""
