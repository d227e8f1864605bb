"""`check` names each segment that is damaged, missing, cut or another's."""

import os
import shutil
from pathlib import Path

from tests.offline.bases import Checked, segments
from tests.offline.damages import flip_payload


def test_each_damaged_place_of_a_journal_is_named(base_of_segments: Path) -> None:
    flip_payload(base_of_segments, b"startRun", 0)
    flip_payload(base_of_segments, b"sk-provider", 0)
    flip_payload(base_of_segments, b"proceeding", 1)
    checked = Checked(base_of_segments)
    assert checked.names == {"journal_damage"}
    assert [(line["segment"], line["position"]) for line in checked.findings] == [
        ("0000000001.segment", 1),
        ("0000000001.segment", 3),
        ("0000000002.segment", 9),
    ]
    assert checked.note_names == {"index_not_compared", "tree_not_compared"}


def test_a_missing_segment_is_damage(base_of_segments: Path) -> None:
    segments(base_of_segments)[1].unlink()
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["reason"]) == ("0000000002.segment", "it is missing")


def test_missing_first_segments_are_damage(base_of_segments: Path) -> None:
    for path in segments(base_of_segments)[:2]:
        path.unlink()
    found = Checked(base_of_segments).only("journal_damage")
    assert found["segment"] == "0000000001.segment to 0000000002.segment"


def test_a_missing_last_segment_is_seen_by_what_was_made_of_it(base_of_segments: Path) -> None:
    segments(base_of_segments)[-1].unlink()
    checked = Checked(base_of_segments)
    assert checked.names == {"index_ahead", "tree_ahead"}
    assert "tree_foreign_file" in checked.note_names


def test_a_cut_within_a_segment_is_damage(base_of_segments: Path) -> None:
    os.truncate(segments(base_of_segments)[1], 20_000)
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["position"]) == ("0000000002.segment", 10)


def test_a_cut_at_the_end_is_seen_by_what_was_made_of_it(base: Path) -> None:
    """Nothing that is left of the journal proves that there was more."""
    os.truncate(segments(base)[0], 3000)
    checked = Checked(base)
    assert checked.status == 1
    assert checked.names >= {"index_ahead", "tree_ahead"}


def test_a_segment_in_the_place_of_another_is_damage(base_of_segments: Path) -> None:
    shutil.copy(segments(base_of_segments)[0], segments(base_of_segments)[2])
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["reason"]) == ("0000000003.segment", "it says that it is number 1")
