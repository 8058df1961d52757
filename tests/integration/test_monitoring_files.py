# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules and dashboard: promtool takes and tests them, and they name only metrics and codes that there are."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import pytest
import yaml
from ansible_collections.redisops.recovery.plugins.module_utils.health.catalogue import MEANINGS
from ansible_collections.redisops.recovery.plugins.module_utils.monitoring.metrics import HELP

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "redis_monitoring" / "files"
RULES = FILES / "redisops-alerts.yml"
CASES = ROOT / "tests" / "monitoring" / "alerts_test.yml"


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    board = json.loads((FILES / "redisops-dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_promtool_takes_the_rules_and_they_ring_as_they_should():
    promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_every_alert_is_tested_to_ring():
    cases = [row for test in yaml.safe_load(CASES.read_text())["tests"] for row in test["alert_rule_test"]]
    assert {row["alertname"] for row in cases if row.get("exp_alerts")} == {rule["alert"] for rule in rules()}


def test_rules_and_dashboard_name_metrics_that_there_are():
    for expression in [*(rule["expr"] for rule in rules()), *expressions()]:
        names = set(re.findall(r"\b(redisops_\w+)", expression))
        assert names, expression
        assert names <= set(HELP), expression


#: What the general rules leave out → the rule that tells it.
OWN = {
    "server_down": "RedisDown", "server_not_responding": "RedisDown", "no_persistence": "RedisCrashLossUnbounded", "crash_loss_too_large": "RedisCrashLossTooLarge",
    "backup_none": "RedisNoVerifiedBackup", "backup_unverified": "RedisNoVerifiedBackup", "backup_old": "RedisBackupTooOld",
    "backup_failed": "RedisBackupFailed", "drill_none": "RedisNeverDrilled", "drill_old": "RedisDrillTooOld", "drill_failed": "RedisDrillFailed",
}  # fmt: skip


def test_what_the_general_rules_leave_out_has_a_rule_of_its_own():
    left_out = set()
    for rule in rules():
        if rule["alert"] in ("RedisFindingCritical", "RedisFindingWarning"):
            for part in re.findall(r'code!~"([^"]+)"', rule["expr"])[0].split("|"):
                codes = {code for code in MEANINGS if re.fullmatch(part, code)}
                assert codes, part
                left_out |= codes
    assert left_out == set(OWN)
    assert set(OWN.values()) <= {rule["alert"] for rule in rules()}


def test_what_is_joined_over_hosts_is_joined_by_who_shares_backups():
    joins = [
        labels.split(", ")
        for expression in [*(rule["expr"] for rule in rules()), *expressions()]
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    ]
    assert joins
    assert all({"group", "backup_group"} <= set(labels) for labels in joins), joins


@pytest.mark.parametrize("expression", expressions())
def test_prometheus_can_read_what_the_dashboard_asks(expression, tmp_path):
    file = tmp_path / "rule.yml"
    asked = expression.replace("$group", "orders")
    file.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [{"record": "asked", "expr": asked}]}]}))
    promtool("check", "rules", str(file))
