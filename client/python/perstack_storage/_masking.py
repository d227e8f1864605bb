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
_USER_IN_URL = re.compile(r"(://)[^/?#\"\\]*@")


def folded(key: str) -> str:
    """A key without what distinguishes apiKey, api_key and API-KEY."""
    return key.replace("-", "").replace("_", "").lower()


def masked(value: Any, *, all_secret: bool = False) -> Any:
    """A decoded run setting, or a part of it, with "***" in the place of each secret."""
    if isinstance(value, str):
        return _USER_IN_URL.sub(r"\1***@", value)
    if isinstance(value, list):
        return [masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: MASK
        if all_secret or folded(key) in SECRETS
        else masked(item, all_secret=isinstance(item, dict) and folded(key) in SECRET_OBJECTS)
        for key, item in value.items()
    }
