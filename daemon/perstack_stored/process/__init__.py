"""Child processes: an isolated start, progress in shared memory, and detection of hangs.

Entry points: `interpreter.start` runs a module of this program isolated from the working directory;
`supervised.SupervisedChild` starts one again when it fails, over `line`, which carries state and reports;
`worker_status.WorkerStatus` shows progress; `hang_detector.HangDetector` distinguishes a slow worker from one
that hangs.

Imports: `errors` only. Imported by packages that start a child: tree, store, projection, keeper,
mirror, launcher, offline.
"""
