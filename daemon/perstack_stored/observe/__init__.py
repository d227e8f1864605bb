"""Observability: counters, logs, metrics, the HTTP port, and notifications to systemd.

Entry points: `counters` (plain numbers that the serving loop adds to), `log.configure`, `prometheus.Metrics`,
`http.MetricsServer`, `systemd.Notifier`.

Invariant: no payload and no secret is logged or exported. Imports: `errors` only; it knows the
server and the workers only by Protocols.
"""
