"""The checksum is CRC-32C, however its extension is found."""

import importlib
import sys
from types import SimpleNamespace

import pytest

from perstack_stored.model import checksum

# From RFC 3720, appendix B.4.
EXAMPLES = [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)]


@pytest.mark.parametrize(("data", "wanted"), EXAMPLES)
def test_it_is_the_checksum_of_the_standard(data: bytes, wanted: int) -> None:
    assert checksum.crc32c(data) == wanted
    assert checksum.crc32c(memoryview(data)[5:], checksum.crc32c(data[:5])) == wanted


def test_the_package_is_not_imported() -> None:
    """It would take a fifth of the time in which a worker starts."""
    before = sys.modules.pop("crc32c", None)
    try:
        importlib.reload(checksum)
        assert "crc32c" not in sys.modules
    finally:
        if before is not None:
            sys.modules["crc32c"] = before


def test_another_layout_of_the_package_is_imported_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "PathFinder", SimpleNamespace(find_spec=lambda *_: None))
    assert checksum._extension().crc32c(EXAMPLES[0][0]) == EXAMPLES[0][1]
