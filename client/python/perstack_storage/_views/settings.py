"""Records that hold the setting of a run. No I/O."""

from typing import Any

_REDACTION = "redactRunSetting"
SETTING_OPS = ("storeRunSetting", _REDACTION)
"""Of a run the first record of these counts. Later ones of the first kind stand in the history."""


def is_redaction(record: Any) -> bool:
    """Whether a record replaced the setting, to mask its secrets."""
    return bool(record["op"] == _REDACTION)


def setting_in(record: Any) -> Any:
    """The setting that a record of these operations holds."""
    return record["value"]["setting"] if is_redaction(record) else record["value"]
