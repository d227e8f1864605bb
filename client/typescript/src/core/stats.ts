// The answer to `stats`; what each field means stands in `daemon/docs/stats.md`.

/** How far index or tree are. */
export interface ProjectionStats {
  /** Null while it starts, as the next three. */
  position: number | null
  lagRecords: number | null
  lagBytes: number | null
  lagSeconds: number | null
  /** "", or what stops it. */
  fault: string
  faults: number
  starts: number
}

/** How far a copy in a bucket is. `position` and the next two: null while it is not known what it holds. */
export interface MirrorStats {
  enabled: boolean
  position: number | null
  lagRecords: number | null
  lagBytes: number | null
  lagSeconds: number
  /** Objects made, the journal's bytes in them, and their size. */
  pieces: number
  bytes: number
  packedBytes: number
  /** Segments of the journal that were replaced since something was erased in them, and those to replace. */
  replaced: number
  toReplace: number
  /** "", or why it can't go on. */
  fault: string
  faults: number
  starts: number
}

/** Counters and gauges of a daemon; counters begin with its start. A newer one may have more fields. */
export interface Stats {
  position: number
  uptimeSeconds: number
  sessions: number
  /** Named cursors: records after the one furthest back, and by name after the 100 furthest back. */
  cursors: { count: number; maxLagRecords: number; lagRecords: { [name: string]: number } }
  messages: number
  journal: {
    segment: number
    offset: number
    syncs: number
    syncSeconds: number
    slowSyncs: number
    /** Bytes before and after; `fault`: why a segment can't be packed, or "". */
    packed: { segments: number; bytes: number; packedBytes: number; fault: string }
  }
  /** By operation. */
  stored: { [op: string]: number }
  repeated: number
  /** `pending`: deletions that are not erased yet; the oldest one is of `oldestSeconds` ago; `fault`: why not, or "". */
  deletions: {
    stored: number
    guards: number
    guardsEndedEarly: number
    pending: number
    oldestSeconds: number
    erasedRecords: number
    fault: string
  }
  /** `fault`: why the last sweep failed, or "". `timeMs`: the time by which ages are counted. */
  retention: {
    sweeps: number
    deleted: number
    candidates: number
    candidateBytes: number
    fault: string
    timeMs: number
  }
  /** By code. */
  refused: { [code: string]: number }
  held: { requests: number; bytes: number }
  partsBytes: number
  reads: { waiting: number; pending: number; following: number; answered: number; failed: number }
  outbox: { stalled: number; dropped: number; gone: number }
  connections: {
    open: number
    accepted: number
    /** By reason, as the next two. */
    failed: { [reason: string]: number }
    cut: { [reason: string]: number }
    paused: { [reason: string]: number }
    halfBytes: number
  }
  index: ProjectionStats & { rebuilds: number }
  tree: ProjectionStats & { blocked: number, whole: boolean }
  /** Of a journal that daemons share. */
  replication: {
    enabled: boolean
    /** Last message of the log that is applied, and messages after it. */
    sequence: number
    lagMessages: number
    connected: boolean
    /** Why its servers can't be reached, or refuse messages; "" otherwise. */
    fault: string
    inFlight: number
    resent: number
    heldReads: number
  }
  /** Of the journal's copy in a bucket, and of the tree's. */
  mirror: MirrorStats
  treeMirror: MirrorStats
  /** Of a daemon that serves a copy of a mirror. `checkedSeconds`: since the bucket answered last. */
  copy: {
    enabled: boolean
    position: number | null
    checkedSeconds: number | null
    fault: string
    faults: number
  }
}
