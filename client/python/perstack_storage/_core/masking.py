"""What counts as a secret in a run setting, and decoded settings without them. The daemon's tools agree."""

import re
from typing import Any

MASK = "***"
SECRETS = frozenset(
    {
        "apikey",
        "perstackapikey",
        "accesskeyid",
        "secretaccesskey",
        "sessiontoken",
        "accesstoken",
        "authtoken",
        "bearertoken",
        "token",
        "secret",
        "clientsecret",
        "password",
        "privatekey",
        "credentials",
    }
)
"""Keys of secrets, as `folded` has them."""
SECRET_OBJECTS = frozenset({"env", "headers"})
"""Each value in such an object may be a secret, whatever its key is."""
_WITH_A_SETTING = frozenset({"storeRunSetting", "redactRunSetting"})
_USER_IN_URL = re.compile(r"(://)[^/?#\"\\]*@")


def folded(key: str) -> str:
    """A key without what distinguishes apiKey, api_key and API-KEY."""
    return key.replace("-", "").replace("_", "").lower()


def masked(value: Any) -> Any:
    """A decoded run setting, or a part of it, of any depth, with "***" in the place of each secret."""
    whole: list[Any] = []
    todo: list[tuple[Any, Any, bool]] = []
    _put(whole, None, value, todo, all_secret=False)
    while todo:
        source, copy, all_secret = todo.pop()
        if isinstance(source, list):
            for item in source:
                _put(copy, None, item, todo, all_secret=False)
            continue
        for key, item in source.items():
            if all_secret or folded(key) in SECRETS:
                copy[key] = MASK
            else:
                secret = isinstance(item, dict) and folded(key) in SECRET_OBJECTS
                _put(copy, key, item, todo, all_secret=secret)
    return whole[0]


def masked_record(op: str, value: Any) -> Any:
    """The value that an operation stored: masked if it is a run setting, or holds one."""
    return masked(value) if op in _WITH_A_SETTING else value


def _put(
    copy: Any, key: str | None, item: Any, todo: list[tuple[Any, Any, bool]], *, all_secret: bool
) -> None:
    if isinstance(item, str):
        item = _USER_IN_URL.sub(r"\1***@", item)
    elif isinstance(item, (dict, list)):
        source, item = item, type(item)()
        todo.append((source, item, all_secret))
    if key is None:
        copy.append(item)
    else:
        copy[key] = item
