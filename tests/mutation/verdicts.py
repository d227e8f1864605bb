"""Of the planted bugs that the simulation can't see: the test that does, or why nobody can."""

_DAMAGED = "tests/unit/journal/test_damaged_journal.py"
_FENCES = "tests/unit/store/test_fences.py"
_EXEC = "tests/integration/exec/test_joining.py"
_START = "tests/integration/test_start.py"
_REBUILD = "tests/offline/test_rebuild.py"
_DAMAGED_VALUE = "tests/unit/index/test_writer.py::test_a_damaged_value_is_reported_not_answered"
_DAMAGED_LARGE_VALUE = (
    "tests/unit/read/test_large_values.py::test_damage_in_a_large_value_is_reported_before_its_end"
)
_PLACES = "tests/faults/test_places.py"
_SUMS = "tests/unit/index/test_page_checksums.py"
_SHIPPED_DAMAGED = (
    "tests/unit/mirror/test_source.py::test_an_entry_that_was_damaged_before_it_was_shipped_is_named"
)
_BACKUP_DAMAGE = "tests/offline/test_backup_damage.py"
_BACKUP_DEATHS = "tests/offline/test_backup_deaths.py"
_GENERATIONS = "tests/offline/test_backup_generations.py"
_RESTORE = "tests/offline/test_restore.py"
_BACKUP = ("tests/offline/test_backup.py", _BACKUP_DAMAGE, _BACKUP_DEATHS, _RESTORE)
_REPAIR_DEATHS = "tests/offline/test_repair_deaths.py"
_REPAIR = ("tests/offline/test_repair.py", "tests/offline/test_repair_losses.py", _REPAIR_DEATHS)
_INDEX_DELETIONS = "tests/unit/index/test_deletions.py"
_SIMULATED_REPAIR = "tests/simulation/test_simulated_repair.py"
_DELETIONS = "tests/unit/store/test_deletions.py"
_CUT_RESTORE = f"{_BACKUP_DEATHS}::test_a_power_cut_in_a_restore_leaves_no_base_or_a_whole_one"
_PACKED = "tests/unit/journal/test_packed_segments.py"
_PREALLOCATION = "tests/unit/journal/test_preallocation.py"
_PACK = "tests/unit/keeper/test_pack.py"
_ERASE = "tests/unit/keeper/test_erase.py"
_ERASING = "tests/unit/journal/test_erasing.py"
_LEFT_OUT = "tests/unit/tree/test_left_out.py"
_MIRROR = "tests/mirror/test_mirror.py"
_FENCE = "tests/unit/mirror/test_tree_fence.py"
_SHIPPER = "tests/unit/mirror/test_shipper.py"
_REPLACER = "tests/unit/mirror/test_replacer.py"
_OLD_JOBS = "tests/unit/tree/old_jobs"
_RECORD_WRITES = "tests/unit/tree/test_record_writes.py"
_SILENT = "tests/integration/test_silent_workers.py"
_APPLY = "tests/unit/replication/test_apply.py"
_NATS_STREAM = "tests/unit/replication/test_nats_stream.py"
_NEW_INDEX = f"{_REBUILD}::test_the_new_index_is_on_disk_before_it_takes_the_place_of_the_old_one"

# Offline tools, locks and sockets are no part of the simulation, and nothing is damaged there.
TESTS: dict[str, tuple[str, ...]] = {
    "a message of the log is applied at the daemon's own time": (_APPLY,),
    "a repeat makes a session of the log newer": (_APPLY,),
    "a gap in a session of the log is accepted": (_APPLY,),
    "half a message of the log is kept at a restart": (_APPLY,),
    "a restart forgets which numbers of the log were refused": (_APPLY,),
    "a retry in the message of its first store finds no position": (_APPLY,),
    "the head of a segment repeats guards that are not written": (_APPLY,),
    "a restart forgets who stored since its segment began": (_APPLY,),
    "the head of a segment repeats who stored in a message that is not written": (_APPLY,),
    "who stored in the same message of the log is not seen": (_APPLY,),
    "pieces of a message that broke off are kept for the next one": (
        "tests/unit/replication/test_pieces.py",
    ),
    "a tree that has not come to where a crash left it counts as whole": (
        "tests/unit/server/test_projections.py",
    ),
    "a worker that gets no processor is taken for one that hangs": (
        f"{_SILENT}::test_a_worker_that_gets_no_processor_is_shown_and_left_alone",
    ),
    "a worker in an endless loop is taken for one that gets no processor": (
        f"{_SILENT}::test_a_worker_that_runs_without_progress_is_killed",
    ),
    "a log that can't be written ends the daemon": ("tests/unit/observe/test_log_output.py",),
    "a checkpoint that another run has stored since vanishes in a replay": (
        "tests/unit/tree/test_deletions.py",
    ),
    "a message that the log has acknowledged and lost goes unnoticed": (_NATS_STREAM,),
    "a tick is a proof that a message was stored": (_NATS_STREAM,),
    "a hole in the log is skipped": ("tests/replication/test_replicated.py", "-k", "flipped"),
    "events that repeat others are not erased": (_ERASING,),
    "versions that were replaced stay in the index after a deletion": (_ERASING,),
    "a job that was replaced can't be read as of then": ("tests/unit/read/test_as_of.py",),
    "erased is said while SQLite's log holds what was deleted": (_ERASING,),
    "a reader keeps the old salt of a segment that was erased in": (_ERASE,),
    "files with old bytes are used again while some must be erased": (
        f"{_PREALLOCATION}::test_no_spare_is_used_while_old_bytes_must_go",
    ),
    "journal/preallocation.py: write_zeros: sync_data": (
        "tests/unit/journal/test_preallocation.py::test_a_segment_made_ahead_leaves_little_unsynced_at_a_time",
    ),
    "transport/binding.py: _listening: rename": (f"{_START}::test_it_serves_several_endpoints",),
    "offline/check/index.py: _addresses: checksum": (
        "tests/offline/test_check_damage.py::test_damage_is_named_alone_and_gives_status_1",
    ),
    "a deletion guard is forgotten at a restart": (f"{_DELETIONS}::test_the_guard_outlives_restarts",),
    "a segment begins without the deletion guards": (f"{_DELETIONS}::test_the_guard_outlives_restarts",),
    "the number of a deleted run is used again": (
        f"{_INDEX_DELETIONS}::test_a_run_never_gets_the_number_of_a_deleted_one",
    ),
    "a deletion removes what came after it": (
        f"{_INDEX_DELETIONS}::test_removals_tell_the_record_before_from_the_one_after",
    ),
    "the tree writes what its slice deletes later": (
        "tests/unit/tree/test_deletions.py::test_a_job_that_begins_again_has_its_new_files_only",
    ),
    "a deletion that found the disk full guards": (
        f"{_DELETIONS}::test_a_deletion_that_finds_no_room_guards_nothing",
    ),
    "a replayed deletion removes files of later records": (
        "tests/unit/tree/test_deletions.py::test_a_replay_keeps_the_files_of_later_records",
    ),
    "retention takes the time of a clock that was behind for the age of what is before it": (
        "tests/unit/index/test_retention.py::test_a_clock_that_was_wrong_for_a_while_makes_nothing_old",
    ),
    **dict.fromkeys(
        (
            "a read that waits shows what was deleted before it came",
            "a redaction is no deletion to reads that wait",
        ),
        (
            "tests/integration/test_deletion_reads.py"
            "::test_a_read_that_waits_shows_nothing_that_was_deleted_before_it_came",
        ),
    ),
    "a copied deletion is no deletion to reads that wait": (
        "tests/mirror/test_copy.py::test_a_read_that_waits_at_a_copy_shows_nothing_that_was_deleted",
    ),
    "a deletion that comes during a read takes a part of its job": (
        "tests/unit/read/test_record_filter.py"
        "::test_a_deletion_that_comes_while_records_are_sent_tears_no_job_in_two",
    ),
    "a leap of the clock makes everything old": ("tests/unit/journal/test_clock.py",),
    "a deletion takes what stands in the place of the tree for an empty one": (
        "tests/unit/tree/test_deletions.py::test_what_stands_in_the_place_of_the_tree_is_no_empty_tree",
    ),
    "retention deletes a job that went on": (
        "tests/unit/index/test_retention.py::test_a_job_that_goes_on_is_not_deleted",
    ),
    **dict.fromkeys(
        (
            "a job that comes back has its new files only",
            "an event without a file brings no old job back",
            "a job that comes back counts as whole before it is",
            "a job is said to be written back before its files are",
            "what is left of an event without a file stays torn when its job is written back",
        ),
        (_OLD_JOBS,),
    ),
    **dict.fromkeys(
        (
            "a cursor is answered with the sync of an earlier batch",
            "a segment begins without the cursors",
            "a start does not read the cursors",
            "a cursor goes back",
            "a cursor counts before the disk had room for it",
        ),
        ("tests/unit/store/test_cursor_requests.py",),
    ),
    "recovery forgets that an entry is atomic": (
        "tests/unit/store/test_atomic.py::test_recovery_keeps_it_whole_and_marked",
    ),
    "the last writers miss what is written while the history is read": (
        f"{_FENCES}::test_while_the_history_is_read_stores_are_busy_and_take_no_number",
    ),
    "what is older than the history counts as nothing": (
        f"{_FENCES}::test_what_is_older_than_the_history_is_too_old",
    ),
    "a session's own stores count as another's": (
        f"{_FENCES}::test_the_session_s_own_stores_are_no_conflict",
    ),
    "a store that was not written counts as a writer's": (
        f"{_FENCES}::test_a_full_disk_leaves_no_writer_that_did_not_write",
    ),
    "a settled store is called a conflict": (f"{_FENCES}::test_what_was_settled_is_old_and_no_conflict",),
    "a restore cuts an atomic batch in two": (
        f"{_RESTORE}::test_a_restore_does_not_cut_an_atomic_batch_in_two",
    ),
    "datadir/lock.py: holder_of: flock": (f"{_EXEC}::test_a_daemon_that_runs_is_joined_and_left_running",),
    "launcher/users.py: join: flock": (f"{_EXEC}::test_the_last_of_several_stops_the_daemon",),
    "launcher/users.py: last: flock": (f"{_EXEC}::test_the_last_of_several_stops_the_daemon",),
    "datadir/filesystem.py: are_apart: rename": (f"{_PLACES}::test_a_folder_bound_to_jobs_is_served",),
    "a tree on a file system of its own is not synced there": (
        "tests/unit/tree/test_file_writer.py::test_on_a_file_system_of_its_own_the_tree_is_staged_and_synced_there",
    ),
    "datadir/lock.py: _lock: flock": (
        f"{_START}::test_a_second_daemon_on_a_base_names_the_first",
        "tests/offline/test_backup_read_only.py",
    ),
    "journal/packed_format.py: decode_table: checksum": (_PACKED,),
    "journal/packed_format.py: unpack_block: checksum": (_PACKED,),
    "a packed segment is not compared with the plain one": (_PACK,),
    "a mirror ships what is not synced": (f"{_MIRROR}::test_what_is_not_synced_is_not_in_the_bucket",),
    "a piece that is there already is not compared": (
        f"{_SHIPPER}::test_other_bytes_stop_it",
        f"{_SHIPPER}::test_a_bucket_that_is_ahead_stops_it",
    ),
    "a piece is skipped where the bucket fails": (
        f"{_SHIPPER}::test_no_piece_is_skipped_where_the_bucket_fails",
    ),
    "a prefix takes the trees of two bases": (f"{_FENCE}::test_what_others_hold_is_named",),
    "a prefix takes the trees of a base and of its copy": (
        f"{_FENCE}::test_of_a_base_and_its_copy_one_stops",
    ),
    "a mirror of the tree does not see that another one wrote": (
        f"{_FENCE}::test_of_a_base_and_its_copy_one_stops",
    ),
    "a generation counts before it is whole": (_REPLACER,),
    "a damaged segment replaces the sound pieces in the bucket": (_REPLACER,),
    "a piece of a generation that is there already is not compared": (_REPLACER,),
    "a generation of other bytes is gone on with": (_REPLACER,),
    "what was erased stays in the bucket": (_REPLACER,),
    "a mirror ships the mark that a start writes over": (f"{_SHIPPER}::test_starts_and_stops_ship_nothing",),
    "a restore takes a segment that lacks what recovery wrote again": ("tests/unit/mirror/test_fetch.py",),
    "keeper/pack.py: pack_segment: rename": (_PACK,),
    "keeper/pack.py: _exchange: exchange": (_PACK,),
    "keeper/pack.py: _exchange: sync": (_PACK,),
    "keeper/pack.py: _exchange: rename": (_PACK,),
    "a recycled file keeps its salt": (_PREALLOCATION,),
    "a clean stop goes on where old bytes stand": (_PREALLOCATION,),
    "journal/preallocation.py: _recycled: rename": (_PREALLOCATION,),
    "a file is recycled while somebody reads it": (
        "tests/unit/journal/test_preallocation.py::test_a_file_that_a_reader_holds_open_is_not_used_again",
    ),
    "tree/blocked.py: save: atomic_replace": ("tests/unit/tree/test_blocked.py",),
    "tree/cursor.py: forget_cursor: sync": (
        f"{_LEFT_OUT}::test_the_cursor_is_gone_before_a_lost_record_is_replaced",
    ),
    "tree/cursor.py: cursor_store: checksum": (
        "tests/unit/tree/test_writer_and_others.py::test_a_cursor_with_any_bad_byte_counts_as_lost",
    ),
    "offline/backup/manifest.py: open_folder: flock": (
        "tests/offline/test_backup.py::test_what_can_not_be_backed_up_or_restored_is_named",
    ),
    "offline/backup/manifest.py: read_manifest: checksum": (
        f"{_BACKUP_DAMAGE}::test_a_manifest_with_another_time_or_position_is_refused",
    ),
    "offline/backup/copy.py: _copy: sync": (
        f"{_BACKUP_DEATHS}::test_the_copies_have_their_names_on_disk_before_they_count",
    ),
    "offline/backup/copy.py: _copy_segment: sync_data": (
        f"{_BACKUP_DEATHS}::test_a_backup_killed_at_any_step_is_never_mistaken_for_a_good_one",
    ),
    "offline/backup/copy.py: _copy_segment: rename": (
        "tests/offline/test_backup.py::test_what_can_not_be_backed_up_or_restored_is_named",
    ),
    "offline/backup/generations.py: _link: link": (f"{_GENERATIONS}::test_a_failure_removes_nothing",),
    "offline/backup/generations.py: _copy: sync_data": (
        f"{_GENERATIONS}::test_where_there_are_no_hard_links_it_copies",
    ),
    "offline/backup/generations.py: backup_and_keep: sync": (
        f"{_GENERATIONS}::test_an_old_backup_goes_only_when_the_new_one_is_on_disk",
    ),
    "offline/backup/restore.py: restore: rename": (_CUT_RESTORE,),
    "offline/backup/restore.py: restore: sync": (_CUT_RESTORE,),
    "offline/backup/restore.py: restore: sync (2)": (_CUT_RESTORE,),
    "offline/backup/restore.py: _write: sync": (_CUT_RESTORE,),
    "offline/backup/restore.py: _restore_segment: sync_data": (_CUT_RESTORE,),
    "offline/backup/restore.py: _write_packed: sync_data": (
        "tests/offline/test_packed.py::test_what_was_restored_packed_outlives_a_power_cut",
    ),
    "index/page_checksums.py: verify_at_rest: checksum": (
        f"{_SUMS}::test_checksums_that_were_changed_are_not_believed",
    ),
    "index/page_checksums.py: _compare: checksum": (f"{_SUMS}::test_every_page_is_tested",),
    "index/page_checksums.py: _put_head: fdatasync": (
        f"{_SUMS}::test_a_power_cut_after_a_checkpoint_takes_no_checksums",
    ),
    "offline/repair/rewrite.py: _finish: sync_data": (
        f"{_REPAIR_DEATHS}::test_what_a_repair_wrote_outlives_a_power_cut",
    ),
    "mirror/source.py: _taken: entry_matches": (_SHIPPED_DAMAGED,),
    "mirror/tree_shipper.py: _save: atomic_replace": (
        "tests/mirror/test_tree_objects.py::test_the_tree_is_in_the_bucket",
    ),
    "a setting is read that was redacted": (
        f"{_INDEX_DELETIONS}::test_a_redacted_setting_takes_the_place_of_all_before",
    ),
    "the setting of a redaction is shown with its secrets": (
        f"{_INDEX_DELETIONS}::test_secrets_of_a_redaction_are_masked_for_readers",
    ),
    **dict.fromkeys(
        (
            "store/group_commit.py: store_deletion: sync_soon",
            "store/group_commit.py: store_copied: sync_soon",
        ),
        ("tests/unit/store/test_group_commit.py::test_what_nobody_waits_for_is_synced_by_itself",),
    ),
    # There, hardly any history begins a segment while something waits for its sync.
    "journal/writer.py: _rotate: sync": (
        "tests/unit/journal/test_writer.py::test_a_segment_is_on_disk_before_the_next_one_begins",
    ),
    # The clients of the simulation send again what is not answered, and that makes up for it.
    "store/group_commit.py: sync_written: sync_soon": ("tests/unit/store/test_group_commit.py",),
    "replication/group_commit.py: _sync_late: sync_soon": ("tests/unit/replication/test_group_commit.py",),
    "the tree goes on before the index knows all that may be there": (
        "tests/unit/server/test_projections.py::test_a_tree_that_begins_waits_for_an_index_that_fell_behind",
    ),
    "offline/rebuild.py: _rebuild_index: rename": (_NEW_INDEX,),
    "offline/rebuild.py: _rebuild_index: sync": (_NEW_INDEX,),
    "offline/rebuild.py: _sync_file: sync_data": (_NEW_INDEX,),
    "offline/rebuild.py: _rebuild_tree: sync": (
        f"{_REBUILD}::test_a_rebuilt_tree_is_synced_and_its_cursor_says_so",
    ),
    "journal/entry_format.py: decode_segment_header: checksum": (
        f"{_DAMAGED}::test_a_damaged_segment_header_stops_the_start",
    ),
    "tree/cursor.py: load_cursor: checksum": (
        "tests/unit/tree/test_writer_and_others.py::test_a_cursor_with_any_bad_byte_counts_as_lost",
    ),
    "proofs behind a bad place are ignored": (_DAMAGED,),
    "numbers of stores that found the disk full stay taken": ("tests/unit/store/test_commit_faults.py",),
    "journal/segment_walk.py: _tested_large: checksum": (_DAMAGED_LARGE_VALUE,),
    "journal/segment_walk.py: _tested: checksum": (
        "tests/unit/journal/test_segment_walk.py::test_entries_before_a_bad_one_are_returned",
    ),
    "journal/entry_format.py: entry_matches: checksum": (_SHIPPED_DAMAGED,),
    "a failed sync of the journal is tried again": (
        "tests/unit/journal/test_writer.py::test_a_failed_write_or_sync_ends_the_journal",
    ),
    "the index goes on from a place that is void": (
        "tests/unit/projection/test_index_projection.py"
        "::test_an_index_whose_place_is_void_continues_at_the_new_place_of_its_records",
    ),
    "a failed sync of the tree is tried again": (
        "tests/unit/tree/test_writer_and_others.py::test_a_sync_that_failed_is_not_tried_again",
    ),
    "a replay of the tree trusts the page cache": (
        "tests/unit/tree/test_writer_and_others.py::test_a_replay_reads_what_is_on_the_disk",
    ),
    "a file that can't be looked at counts as missing": (
        "tests/unit/tree/test_writer_and_others.py::test_a_file_that_can_t_be_looked_at_is_not_replaced_by_an_older_one",
    ),
    "a start goes on behind a torn tail": (
        "tests/unit/journal/test_torn_tails.py::test_a_cut_record_after_a_clean_stop_stays_void",
    ),
    "datadir/filesystem.py: link: link": (
        f"{_GENERATIONS}::test_the_newest_stay_and_share_what_did_not_change",
    ),
    "a replay brings back older versions": (
        "tests/unit/tree/test_writer.py::test_a_replay_never_brings_back_an_older_version",
    ),
    "a lost end of the journal is accepted": (
        f"{_DAMAGED}::test_a_journal_that_lost_its_last_segment_is_refused",
    ),
}

TESTS_OF_FILE: dict[str, tuple[str, ...]] = {
    "keeper/erase.py": (_ERASE,),
    "keeper/eraser.py": (_ERASING,),
    "journal/erasing.py": (_ERASE, _ERASING),
    "model/erasures.py": (_ERASE, _ERASING),
    "access/curve_keys.py": ("tests/integration/test_curve_keys.py",),
    "tree/left_out.py": (_LEFT_OUT, _OLD_JOBS),
    "tree/old_jobs.py": (_OLD_JOBS,),
    "tree/record_writes.py": (_RECORD_WRITES, _OLD_JOBS),
    "tree/sweep.py": (_OLD_JOBS,),
    "tree/requests.py": (_OLD_JOBS,),
    "index/event_blocks.py": ("tests/unit/index/test_event_blocks.py",),
    "offline/check/index_events.py": ("tests/offline/test_check_damage.py",),
    "replication/message.py": ("tests/unit/replication/test_message.py",),
    "server/copying.py": ("tests/unit/server/test_copying.py",),
    "index/value_lookup.py": (_DAMAGED_VALUE, _DAMAGED_LARGE_VALUE),
    "datadir/probe.py": ("tests/unit/datadir/test_probe.py",),
    "mirror/pieces.py": ("tests/unit/mirror/test_pieces.py",),
    "offline/backup/fetch.py": ("tests/unit/mirror/test_fetch.py",),
    "offline/backup/copy.py": (*_BACKUP, "tests/offline/test_backup_read_only.py"),
    "offline/backup/generations.py": (_GENERATIONS,),
    "offline/backup/manifest.py": _BACKUP,
    "offline/backup/restore.py": _BACKUP,
    "offline/repair/swap.py": (_SIMULATED_REPAIR,),
    "offline/repair/evidence.py": _REPAIR,
    "offline/repair/rewrite.py": _REPAIR,
}

# Some are in TESTS too: that test comes nearest, and would contradict the argument.
ARGUED: dict[str, str] = {
    "journal/writer.py: close: sync_data": (
        "a power cut may bring the old bytes after the mark back: then the next start begins a segment"
    ),
    "journal/writer.py: close: sync": "the mark's own sync, right behind, covers all that was written before",
    "keeper/pack.py: pack_segment: sync": (
        "a power cut brings the plain segment back, which holds the same; it is left to nobody else"
    ),
    "the proven offset is ignored": (
        "the end that was reached is held against the proven offset once more, right behind, and named alike"
    ),
    "access/curve_keys.py: generate: fsync": (
        "a key pair that a power cut takes is made anew; nobody has it yet"
    ),
    "offline/repair/swap.py: carry_out: sync": (
        "the sync of the folder that the segments were renamed from, a few calls behind, covers the same"
        " renames; until then the plan is there, and is carried out again"
    ),
    "offline/backup/restore.py: restore: sync": (
        "the tree's cursor, saved right before, has synced the same folder"
    ),
    "tree/file_writer.py: _replace: give_name (2)": (
        "the exchange finds nothing aside then, and the file is put once more from the beginning, as where a"
        " folder is gone"
    ),
    "tree_import/first_start.py: import_tree: sync": (
        "the tree's cursor is saved right behind, which syncs the same folder"
    ),
}
