"""What operators see: counters, logs, metrics, the HTTP port, and notifications to systemd.

Entry points: `counters` (plain numbers that the serving loop adds to), `log.set_up`, `prometheus.Metrics`,
`http.Exposition`, `systemd.Notifier`.

Invariant: no payload and no secret is logged or exported. Imports: `model` and `errors`; it knows neither the
server nor the workers, only the shapes of what it shows.
"""
