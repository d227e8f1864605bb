"""Keys of NATS users: seeds and `.creds` files as NATS writes them, and what is no such thing."""

import base64
import binascii

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from perstack_stored.errors import ConfigError
from perstack_stored.replication.nats_keys import parse_creds, parse_seed

# As the documentation of NATS has it.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
CREDS = f"""-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2ln
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------

*************************************************************
"""


def test_a_seed_gives_the_public_key_and_signs() -> None:
    key = parse_seed(SEED)
    assert key.public == PUBLIC
    raw = base64.b32decode(PUBLIC)[1:33]
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(key.sign("nonce")), b"nonce")


@pytest.mark.parametrize("text", [CREDS, CREDS.replace("\n", "\r\n")])
def test_a_creds_file_is_read(text: str) -> None:
    found = parse_creds(text)
    assert found.jwt == b"eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2ln"
    assert found.key.public == PUBLIC
    assert "eyJ0" not in repr(found)


@pytest.mark.parametrize(
    "text", ["", "SUAC", SEED[:-1], SEED.replace("X", "Y"), SEED.lower(), PUBLIC, SEED + "A" * 8, "ü" * 58]
)
def test_a_seed_with_a_mistake_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_seed(text)
    assert not text or text not in str(caught.value)


def test_the_seed_of_an_account_is_no_user() -> None:
    data = bytearray(base64.b32decode(SEED + "=" * 6))
    data[0], data[1] = 18 << 3, 0  # of an account
    data[-2:] = binascii.crc_hqx(bytes(data[:-2]), 0).to_bytes(2, "little")
    with pytest.raises(ConfigError, match="not that of a user"):
        parse_seed(base64.b32encode(data).decode().rstrip("="))


@pytest.mark.parametrize("text", ["", CREDS.partition("BEGIN USER")[0], CREDS.replace("eyJ0", "?")])
def test_what_is_no_creds_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no JWT"):
        parse_creds(text)
