"""The alert rules are valid, fire when they should and only then, and name metrics that are there."""

import re
import shutil
import subprocess

import pytest

from tests.docs.pages import ROOT
from tests.systemd.debian import need

FOLDER = ROOT / "deploy/prometheus"
# Of Prometheus itself.
FOREIGN = {"up", "ALERTS"}


def promtool(*words: str) -> None:
    need(shutil.which("promtool") is not None, "install prometheus, for promtool")
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_of_a_rule_is_documented() -> None:
    """The page of metrics is tested against the code."""
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "daemon/docs/metrics.md").read_text()))
    rules = (FOLDER / "alerts.yml").read_text()
    named = set(re.findall(r"perstack_stored_([a-z_]+)", rules))
    assert len(named) > 10
    assert named <= documented


def test_every_alert_is_seen_to_fire() -> None:
    """The test file names each, or the count of those that fire says so."""
    alerts = re.findall(r"alert: (\w+)", (FOLDER / "alerts.yml").read_text())
    tests = (FOLDER / "alerts_test.yml").read_text()
    by_severity = {"PerstackStoredDiskFull", "PerstackStoredDamaged"}
    assert len(alerts) == len(set(alerts)) > 10
    assert {alert for alert in alerts if alert not in tests} == by_severity


@pytest.mark.parametrize(
    "words", [("check", "config", "scrape.yml"), ("check", "rules", "alerts.yml")], ids=lambda words: words[1]
)
def test_rules_and_scrape_configuration_are_valid(words: tuple[str, ...]) -> None:
    promtool(*words)


def test_the_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", "alerts_test.yml")
