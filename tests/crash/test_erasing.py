"""The campaign of `make erase-kills` tells what it has come to, however it ends."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.erasing import ended_by_signals, run
from tests.crash.progress import Figures, Progress


def campaign_ending_by(end: Callable[[], object]) -> Callable[[int, int, Path, Progress], Figures]:
    """One that has judged a base of 50 rounds, and ends in the next."""

    def campaign(_rounds: int, _seed: int, folder: Path, progress: Progress) -> Figures:
        (folder / "from-50").mkdir()
        progress(50)
        progress.tell({"lost": 0, "stores": 7})
        progress(53)
        end()
        return {}

    return campaign


def broken() -> None:
    raise AssertionError("lost")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_campaign_that_is_cut_off_reports(
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounds so far, figures of what was judged; it leaves no folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        run("kills", campaign_ending_by(lambda: signal.raise_signal(number)), 100, 1, 60.0)
    assert ended.value.code == 128 + number
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("50 kills in ")
    assert last.startswith("53 kills in ")
    assert ", seed 1, cut off; " in last
    assert last.endswith("{'lost': 0, 'stores': 7}")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_campaign_finds_stays_on_disk(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says where."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(AssertionError, match="lost"):
        run("cuts", campaign_ending_by(broken), 100, 1, 60.0)
    (kept,) = tmp_path.iterdir()
    assert f"something was found, kept in {kept};" in capsys.readouterr().out
    assert (kept / "from-50").is_dir()
