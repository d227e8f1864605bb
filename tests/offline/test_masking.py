"""What is hidden in a run setting, and that all else keeps its bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.model import json_text, masking
from perstack_stored.model.masking import mask, mask_pieces

CASES = {
    "nothing secret": (b'{"model": "m", "n":1e400}', b'{"model": "m", "n":1e400}'),
    "a key": (b'{"apiKey": "s"}', b'{"apiKey": "***"}'),
    "a key of Perstack": (b'{"perstackApiKey":"s","a":1}', b'{"perstackApiKey":"***","a":1}'),
    "deep down": (b'{"a":[{"b":{"apiKey":"s"}}]}', b'{"a":[{"b":{"apiKey":"***"}}]}'),
    "written with an escape": (b'{"api\\u004bey":"s"}', b'{"api\\u004bey":"***"}'),
    "in other spellings": (b'{"api_key":"s","API-KEY":"s"}', b'{"api_key":"***","API-KEY":"***"}'),
    "twice": (b'{"apiKey":"s","apiKey":"t"}', b'{"apiKey":"***","apiKey":"***"}'),
    "no string": (b'{"apiKey":null,"token":12,"x":true}', b'{"apiKey":"***","token":"***","x":true}'),
    "an object": (b'{"apiKey": {"a": [1, "s"]} , "b":2}', b'{"apiKey": "***" , "b":2}'),
    "an array": (b'{"credentials":["s", {"t": 1}],"b":[2]}', b'{"credentials":"***","b":[2]}'),
    "credentials of AWS": (
        b'{"providerConfig":{"accessKeyId":"s","secretAccessKey":"s","sessionToken":"s","region":"r"}}',
        b'{"providerConfig":{"accessKeyId":"***","secretAccessKey":"***","sessionToken":"***","region":"r"}}',
    ),
    "values of headers": (
        b'{"providerConfig":{"headers":{"X-A":"s","X-B":["s"]},"name":"n"}}',
        b'{"providerConfig":{"headers":{"X-A":"***","X-B":"***"},"name":"n"}}',
    ),
    "values of env": (b'{"env":{"A":"s","B":{"C":"s"}},"x":1}', b'{"env":{"A":"***","B":"***"},"x":1}'),
    "no values": (b'{"env":{},"headers":{}}', b'{"env":{},"headers":{}}'),
    "names of variables": (b'{"requiredEnv":["HOME"]}', b'{"requiredEnv":["HOME"]}'),
    "a string that looks like a key": (
        b'{"a":"apiKey","b":["apiKey","x"]}',
        b'{"a":"apiKey","b":["apiKey","x"]}',
    ),
    "a user in a URL": (
        b'{"proxyUrl":"http://u:p@host:80/a@b","l":["https:\\/\\/u:p@h"]}',
        b'{"proxyUrl":"http://***@host:80/a@b","l":["https:\\/\\/***@h"]}',
    ),
    "an expert key": (b'{"expertKey":"@scope/name@1.0.0"}', b'{"expertKey":"@scope/name@1.0.0"}'),
    "a secret with quotes": (b'{"apiKey":"a\\"},{\\\\","b":1}', b'{"apiKey":"***","b":1}'),
}


@pytest.mark.parametrize("what", CASES)
def test_secrets_are_hidden_and_the_rest_keeps_its_bytes(what: str) -> None:
    setting, expected = CASES[what]
    assert mask(setting) == expected


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[]:,@/é\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "apiKey", "env", "headers", 'x"}', "token"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "apiKey", "env", "providerConfig", "é"]), _values))
def test_masking_does_what_masking_of_the_decoded_value_does(setting: dict[str, object]) -> None:
    assert json.loads(mask(json.dumps(setting).encode())) == _masked(setting)


def _masked(value: object, *, all_secret: bool = False) -> object:
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: "***"
        if all_secret or key in {"apiKey", "token"}
        else _masked(item, all_secret=key in {"env", "headers"})
        for key, item in value.items()
    }


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize("step", [8, 9, 17])
def test_a_large_setting_is_masked_in_short_steps(
    monkeypatch: pytest.MonkeyPatch, what: str, step: int
) -> None:
    """The same comes of it, wherever a step ends: within a string, an escape, a URL or a secret."""
    monkeypatch.setattr(json_text, "_WINDOW_BYTES", step)
    monkeypatch.setattr(masking, "_STEP_BYTES", step)
    monkeypatch.setattr(masking, "_PIECE_BYTES", step)
    monkeypatch.setattr(masking, "_TOKENS_PER_STEP", 1)
    setting, expected = CASES[what]
    assert b"".join(mask_pieces(bytearray(setting))) == expected


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":[%s1]}' % (b"1," * 50_000),
        b'{"a":"%s"}' % (b"@/" * 50_000),
        b'{"env":[%s1]}' % (b"1," * 50_000),
    ],
    ids=["many numbers", "many URLs in a string", "many secrets"],
)
def test_dense_text_is_masked_in_many_steps(text: bytes) -> None:
    """A client that reads so little text must not keep others waiting for all of its tokens."""
    assert len(text) < masking._PIECE_BYTES
    assert sum(1 for _ in mask_pieces(text)) > 10


@pytest.mark.parametrize(
    "text",
    [b'{"a":"%s@"}' % (b"x" * 1000), b'{"a":"://%s@b"}' % (b"x" * 1000), b'{"a":"%s@"}' % (b"://" * 400)],
    ids=["no URL", "a long user", "many URLs"],
)
def test_text_before_an_at_may_be_long(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """A user and password of any length are hidden, and nothing else."""
    expected = mask(text)
    assert (b"***" in expected) == (b"://x" in text or b"://@" in text)
    monkeypatch.setattr(masking, "_STEP_BYTES", 8)
    assert mask(text) == expected
