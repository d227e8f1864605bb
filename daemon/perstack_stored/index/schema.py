"""The tables of the index, and the version of their layout."""

SCHEMA_VERSION = 8

VOUCHING_VERSIONS = frozenset({2, 3, 4, 5, 6, 7, 8})
"""Versions whose lost records a repair can read: after an update, an older index is all there is."""

SPAN_POSITIONS = 1024
"""Positions in a span: a read of one job passes over the spans without a record of it."""

LOST_SEGMENT = 0

LOST_POSITION = 2**62

_SCHEMA = """
CREATE TABLE cursor (store BLOB NOT NULL, position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER
NOT NULL, crc INTEGER NOT NULL);  -- a wrong position would make the journal seem to have lost its end
CREATE TABLE place (position INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE TABLE job (
  id TEXT PRIMARY KEY, started_at NUMERIC NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX job_order ON job (started_at DESC, id);
CREATE TABLE checkpoint (
  job TEXT NOT NULL, id TEXT NOT NULL, step INTEGER NOT NULL, run INTEGER NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (job, id)
) WITHOUT ROWID;
CREATE INDEX checkpoint_order ON checkpoint (job, step, position);
-- Versions of jobs and checkpoints that were replaced: see older_versions.py. A Job has no id, step and run.
CREATE TABLE older (
  job TEXT NOT NULL, kind INTEGER NOT NULL, id TEXT NOT NULL,
  position INTEGER NOT NULL, until INTEGER NOT NULL,  -- of this version, and of the one after it
  step INTEGER NOT NULL, run INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (job, kind, id, position)
) WITHOUT ROWID;
CREATE INDEX older_order ON older (job, kind, step, position);
CREATE TABLE run (
  id INTEGER PRIMARY KEY, job TEXT NOT NULL, name TEXT NOT NULL,
  stirred INTEGER NOT NULL DEFAULT 0,  -- position of the last event whose step is below an earlier one's
  -- The summary of its records: see summaries.py. A run without any has none of it.
  begun INTEGER, dated INTEGER NOT NULL DEFAULT 0, first_position INTEGER,
  checkpoints INTEGER NOT NULL DEFAULT 0, status TEXT, expert TEXT, usage TEXT, parent TEXT,
  UNIQUE (job, name)
);
-- What changes with each event: a narrow row is written in half the time.
CREATE TABLE run_count (
  run INTEGER PRIMARY KEY, last_position INTEGER NOT NULL, last_at INTEGER, events INTEGER NOT NULL,
  types TEXT NOT NULL, ended TEXT
);
CREATE INDEX run_begun ON run (begun) WHERE begun IS NOT NULL;
CREATE INDEX run_of_job ON run (job, begun) WHERE begun IS NOT NULL;
CREATE INDEX run_status ON run (status, begun) WHERE begun IS NOT NULL;
CREATE INDEX run_expert ON run (expert, begun) WHERE begun IS NOT NULL;
-- Each job that a record names, and what is known of it besides its runs.
CREATE TABLE known_job (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  begun INTEGER, dated INTEGER NOT NULL DEFAULT 0, first_position INTEGER,
  status TEXT, expert TEXT, usage TEXT, stored INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX known_job_begun ON known_job (begun) WHERE begun IS NOT NULL;
CREATE INDEX known_job_status ON known_job (status, begun) WHERE begun IS NOT NULL;
CREATE INDEX known_job_expert ON known_job (expert, begun) WHERE begun IS NOT NULL;
CREATE TABLE setting (
  run INTEGER PRIMARY KEY, job TEXT NOT NULL, name TEXT NOT NULL,
  updated_at NUMERIC NOT NULL, rewritten INTEGER NOT NULL, lacks INTEGER NOT NULL,
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL,
  sent_at TEXT NOT NULL,  -- its updatedAt as it was sent: the tree's file may show a later one
  sent_start INTEGER NOT NULL, body_end INTEGER NOT NULL  -- where that stands, and what is added goes
);
CREATE INDEX setting_order ON setting (updated_at DESC, job, name);
-- Most events, some hundreds in a row: see event_blocks.py. The columns are those of the last event.
CREATE TABLE event_block (
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL,
  last_step INTEGER NOT NULL, last_timestamp INTEGER NOT NULL, last_position INTEGER NOT NULL,
  data BLOB NOT NULL
);
CREATE UNIQUE INDEX event_block_step ON event_block (run, last_step, last_position);
CREATE INDEX event_block_time ON event_block (run, last_timestamp, last_position);
-- The other events. The key is the name of the event's file. Events with one name differ in n: 1, 2, …
-- A lost event keeps its name: its segment is 0, and its position behind all others.
CREATE TABLE event (
  run INTEGER NOT NULL, timestamp INTEGER NOT NULL, step INTEGER NOT NULL, type TEXT NOT NULL, n INTEGER NOT
  NULL, at TEXT,  -- the timestamp itself, where it has a fraction
  position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
  length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (run, timestamp, step, type, n)
) WITHOUT ROWID;
-- The orders of getEventsByRun, with all that it answers, and of getEventContents.
CREATE INDEX event_order ON event (run, step, position, at);
CREATE INDEX event_time ON event (run, coalesce(CAST(at AS REAL), timestamp), position);
CREATE INDEX event_twin ON event (run, timestamp, step, type, crc) WHERE n > 1;
-- Events that don't have their plain file name: n as above, or 0 for one that repeats an earlier event.
CREATE TABLE twin (position INTEGER PRIMARY KEY, n INTEGER NOT NULL);
-- Spans of 1,024 positions, numbered from 0, in which a job has records: a read of one job goes by them.
CREATE TABLE job_span (
  job TEXT NOT NULL, span INTEGER NOT NULL, PRIMARY KEY (job, span)
) WITHOUT ROWID;
-- Positions whose records were lost.
CREATE TABLE gap (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
-- Whose the records are that are too large to be looked into at each read.
CREATE TABLE large (position INTEGER PRIMARY KEY, job TEXT NOT NULL, run TEXT NOT NULL);
CREATE INDEX large_job ON large (job);
-- Deletions: see deletions.py. Without a run it is the whole job. `value` is the record, `crc` its crc32c.
CREATE TABLE deletion (
  position INTEGER PRIMARY KEY, time INTEGER NOT NULL, job TEXT NOT NULL, run TEXT,
  value BLOB NOT NULL, crc INTEGER NOT NULL,
  last_run INTEGER NOT NULL,  -- the greatest number that a run had: no later run gets it
  is_redaction INTEGER NOT NULL DEFAULT 0,  -- only the settings of the run went
  erased INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX deletion_job ON deletion (job, position);
CREATE INDEX deletion_pending ON deletion (position) WHERE NOT erased;
-- Spans with records that a deletion removed, until they are erased.
CREATE TABLE removed_span (
  deletion INTEGER NOT NULL, span INTEGER NOT NULL, PRIMARY KEY (deletion, span)
) WITHOUT ROWID;
-- Checkpoints that went with their run: the tree has their files in the folder of the job.
CREATE TABLE deleted_checkpoint (
  deletion INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (deletion, id)
) WITHOUT ROWID;
"""
