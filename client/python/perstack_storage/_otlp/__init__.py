"""Export of runs as traces: OpenTelemetry's OTLP over HTTP, in protobuf, for Langfuse, Phoenix and others.

Entry point: `program.export`, for the command `perstack-storectl export`. `spans` makes spans of records,
`protobuf` writes and `delivery` sends them, `state` keeps how far it is.

Invariants: ids of traces and spans follow from the store, job, run, step and tool call, so sending one again
changes nothing; a span is sent when it has ended; prompts, texts and tool results only where they are asked
for, and run settings never but for the names of model and provider.
"""
