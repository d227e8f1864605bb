"""Bounds of the gateway."""

PORT_DEFAULT = 7180
CONNECTIONS_MAX = 1024
"""Open connections; one more is answered with 503."""
STREAMS_MAX = 600
"""Streams of server-sent events at a time; one more is answered with 503."""
REQUESTS_MAX = 16
"""Requests that are read or sent at a time, without streams; more wait."""
ANSWER_BYTES_MAX = 64 << 20
"""Bytes of an answer; a larger one is refused: ask for fewer items, or omit fields."""
RECORDS_BYTES_MAX = 272 << 20
"""The same where records are cut before they are sent: one of them alone has 256 MiB at most."""
RECORD_READS_MAX = 2
"""Such reads at a time; more wait."""
PAGE_DEFAULT, PAGE_MAX = 100, 1000
RECORDS_DEFAULT, RECORDS_MAX = 1000, 10_000
TYPES_MAX = OMIT_MAX = 64
OPS_MAX = 16
NAME_CHARS_MAX = 200
QUERY_BYTES_MAX = 16 << 10
"""Bytes of a request's query string."""
RUN_READS_MAX = 8
"""Runs whose start is read at a time, for usage over time; more wait."""
RUN_STARTS_KEPT_MAX = 20_000
"""Runs whose start is remembered for it."""
SETTING_BYTES_MAX = 1 << 20
"""Of a larger run setting the model is not read."""
TOOL_READS_MAX = 4
"""Runs whose calls of tools are read at a time; more wait."""
TOOL_EVENTS_MAX, TOOL_BYTES_MAX = 2_000, 16 << 20
"""Such events of a run that are counted, and bytes of them that are read at a time."""
TOOL_PAGE_MAX = 200
"""Runs of a page of calls of tools."""
TOOLS_KEPT_BYTES_MAX = 16 << 20
"""Bytes of such calls that are remembered, as JSON."""
TEXT_CHARS_MAX = 16 << 10
"""Characters that are left of each text of a record that is larger than `SLIM_BYTES_MAX`."""
SLIM_BYTES_MAX = 64 << 10
FILE_RECORDS_MAX = 100
"""Records that are read at a time for the file of a job."""
FILE_CHECKPOINT_BYTES_MAX = 4 << 20
"""A larger checkpoint stands in the file of a job without its messages."""
KEPT_RECORDS_MAX, KEPT_BYTES_MAX = 20_000, 16 << 20
"""The newest records that are kept for all streams together."""
JOBS_FOLLOWED_MAX = 8
"""Jobs that are followed by a read of their own; each keeps so small a part of the above."""
FOLLOWED_RECORDS = 1000
"""Records of such a job that are read every `MERGE_S` at most; where it stores more, its streams lag."""
MERGE_S = 0.1
"""A stream of merged records, or of jobs, has a message this often at most."""
CHANGES_RECORDS = 1000
"""Records that are read every `MERGE_S` at most, to see which jobs change."""
CHANGES_BEHIND_MAX = 5000
"""If more are left then, they are passed over: any job may have changed."""
CHANGES_SKIP_S = 1.0
"""The pause after that."""
CHANGED_JOBS_MAX = 1000
"""Jobs that a message names; of more it says that any may have changed."""
CATCH_UP_READS_MAX = 8
"""Streams that read older records at a time; more wait for their turn."""
HEARTBEAT_S = 10.0
"""A stream that has nothing to send tells its position this often."""
DAEMON_RETRY_S = 0.5
WAIT_MS = 2000
"""How long the daemon holds a read that waits for new records: its end is noticed after that."""
