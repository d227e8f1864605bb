"""The inspector: what is stored, over HTTP on loopback, and a page that shows it. Read-only.

Entry point: `program.serve`, for the command `perstack-storectl inspect`. It reads as any client does, so
the daemon knows nothing of it. `gateway.make_app` builds the application: `guard` decides who may ask,
`routes` answer, `live` follows the store for streams of events, `page` serves the built page.

Invariants: nothing is ever stored; secrets of run settings are masked in each answer; an answer, the number
of connections, and what is kept for streams have bounds (`limits`). It needs the extra `inspect`.
"""
