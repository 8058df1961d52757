# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One table out of what the roles registered: critical first, nothing that is not known counts as free of drift."""

from __future__ import annotations

from ansible_collections.redisops.recovery.plugins.filter.drift_table import drift_table


def changes(*rows: tuple) -> dict:
    names = ("layer", "name", "found", "declared", "since")
    return {"changed": bool(rows), "changes": [dict(zip(names, row)) for row in rows]}


FINE = {
    "__redisops_drift_whole": True,
    "__redis_server_persistence": changes(),
    "__redis_install_apt": {"changed": False},
}


def test_a_fleet_without_drift():
    found = drift_table({"a": FINE, "b": FINE})
    assert (found["rows"], found["hosts"], found["text"]) == ([], [], "No drift on 2 hosts.\n")


def test_what_recovery_depends_on_comes_first():
    found = drift_table({
        "a": {**FINE, "__redis_kernel_sysctl": changes(("live", "vm.overcommit_memory", "0", "1", None))},
        "b": {
            "__redisops_drift_whole": True,
            "__redis_server_persistence": changes(("file", "appendonly", "no", "yes", 1795555957.0), ("live", "hz", "10", "20", None)),
            "__redis_firewall_result": changes(("live", "table inet redisops", None, "as declared", None)),
        },
    })  # fmt: skip
    assert [(row["host"], row["name"], row["critical"]) for row in found["rows"]] == [
        ("b", "appendonly", True), ("b", "table inet redisops", True), ("a", "vm.overcommit_memory", False), ("b", "hz", False),
    ]  # fmt: skip
    assert "| b | ! file: appendonly | yes | no | 2026-11-24 21:32:37 UTC |" in found["text"]
    assert "| b | ! live: table inet redisops | as declared | absent |  |" in found["text"]
    assert found["hosts"] == ["b", "a"]


def test_a_host_that_was_not_reached_or_refused_or_lost_is_told():
    found = drift_table({
        "gone": {"ansible_host": "192.0.2.1", "__redis_install_plan": {"packages": []}},
        "stuck": {"__redis_server_persistence": {"failed": True, "changed": False, "msg": "x"}, "__redisops_drift_refusal": "Set it: Two primaries.\nmore"},
        "lost": {"__redis_install_apt": {"changed": False}},
        "fine": FINE,
    })  # fmt: skip
    assert [(row["host"], row["name"]) for row in found["rows"]] == [
        ("gone", "not known"),
        ("stuck", "refused"),
        ("lost", "not known"),
    ]
    assert "Set it: Two primaries." in found["text"]
    assert all(row["critical"] for row in found["rows"])


def test_the_same_thing_said_by_two_tasks_is_one_row_and_loops_are_read():
    twice = changes(("file", "port", "6380", "6379", 1.0))
    found = drift_table({"a": {
        "__redisops_drift_whole": True, "__redis_replication_result": twice, "__redis_replication_bound": twice,
        "__redis_install_found": {"changed": True, "results": [{"changed": False}, {"changed": True}]},
    }})  # fmt: skip
    assert [(row["layer"], row["name"]) for row in found["rows"]] == [("file", "port"), ("package", "redis_install")]
    assert (
        "a|b"
        not in drift_table(
            {"a": {"__redisops_drift_whole": True, "__redis_acl_result": changes(("file", "user x", "a|b", "c", None))}}
        )["text"]
    )
