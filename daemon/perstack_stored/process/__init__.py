"""Child processes: an isolated start, progress in shared memory, and detection of a hang.

Entry points: `interpreter.start` runs one of our modules whatever lies in the working directory;
`worker_status.WorkerStatus` shows progress; `hang_detector` tells a slow worker from one that hangs.

Imports: `errors` only. Imported by the packages that start a child: tree, store, projection, launcher.
"""
