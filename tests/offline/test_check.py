"""`check` finds nothing in a base that is as it should be, and changes nothing."""

from pathlib import Path

from tests.helpers.daemon import files_of
from tests.offline.bases import Checked, change_index, contents, run, segments


def test_a_base_that_was_stopped_in_order_is_clean(base: Path) -> None:
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])
    assert checked.summary["records"] == 20
    assert checked.summary["files"] == len(files_of(base)) == 16


def test_a_base_of_several_segments_is_clean(base_of_segments: Path) -> None:
    """Recovery wrote records again, so the index holds addresses in what is void now."""
    checked = Checked(base_of_segments)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])


def test_bytes_after_the_logical_end_of_a_segment_are_ignored(base_of_segments: Path) -> None:
    change_index(base_of_segments, "DELETE FROM cursor")  # or addresses there would be looked up
    first = segments(base_of_segments)[0]
    first.write_bytes(first.read_bytes() + b"PSE1 of long ago")
    assert Checked(base_of_segments).names == {"index_unusable"}


def test_check_changes_nothing_in_the_base_but_the_text_of_the_lock(base: Path) -> None:
    before = contents(base)
    assert Checked(base).status == 0
    after = contents(base)
    before.pop(".stored/lock")
    assert after.pop(".stored/lock")[1] == b""
    assert after == before


def test_check_for_people_says_clean(base: Path) -> None:
    result = run("check", base)
    assert result.returncode == 0
    assert result.stdout.startswith("clean; compared: 20 records, ")
    assert result.stderr == ""


def test_check_for_people_names_each_finding_in_a_line(base: Path) -> None:
    (base / "jobs/j1/job.json").unlink()
    (base / "jobs/a\nb").touch()
    result = run("check", base)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "finding tree_missing_file path=jobs/j1/job.json position=12"
    assert lines[1] == 'note tree_foreign_file path="jobs/a\\nb" kind=file'
    assert lines[-1].startswith("1 findings; compared: ")
