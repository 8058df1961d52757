# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a restart is due, and whether it may be done."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.aof_manifest import AofFile, AofManifest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.files import DataFiles, Place
from ansible_collections.redisops.recovery.plugins.module_utils.server.info import Info, Keyspace
from ansible_collections.redisops.recovery.plugins.module_utils.service.plan import (
    DeclaredUnit,
    Pending,
    Process,
    directive_reasons,
    missing_keys,
    plan_unit,
    process_reasons,
    require_is_the_units,
    require_overrides,
    require_primary,
    require_restart,
    require_role,
    require_start,
    require_unit_file,
    unit_problem,
)

PLACE = {"dir": "/data", "dbfilename": "dump.rdb", "appenddirname": "appendonlydir", "appendfilename": "appendonly.aof"}
AOF = {**PLACE, "appendonly": "yes", "save": "900 1"}
RDB = {**PLACE, "appendonly": "no", "save": "900 1"}


def code_of(check, *args):
    with pytest.raises(Refusal) as caught:
        check(*args)
    return caught.value.code


@pytest.mark.parametrize(
    ("in_file", "live", "overrides", "names"),
    [
        ({}, {}, {}, []),
        ({"tcp-backlog": "600"}, {"tcp-backlog": "600"}, {}, []),
        ({"tcp-backlog": "600"}, {"tcp-backlog": "511"}, {}, ["tcp-backlog"]),
        ({"tcp-backlog": "600"}, {"tcp-backlog": "511"}, {"tcp-backlog": "511"}, []),
        ({"tcp-backlog": None}, {"tcp-backlog": "511"}, {}, []),
        ({"tcp-backlog": "600"}, {}, {}, []),
        ({"rdbchecksum": "YES"}, {"rdbchecksum": "yes"}, {}, []),
        ({"dir": "/new", "databases": "32"}, {"dir": "/data", "databases": "16"}, {}, ["databases", "dir"]),
        ({"daemonize": "yes", "supervised": "systemd"}, {"daemonize": "no", "supervised": "no"}, {}, []),
        ({"hz": "50"}, {"hz": "10"}, {}, []),  # it can be set live
    ],
)
def test_directives_that_need_a_restart(in_file, live, overrides, names):
    reasons = directive_reasons(in_file, live, overrides)
    assert [reason.split(":")[0] for reason in reasons] == names


@pytest.mark.parametrize(
    ("pending", "names"),
    [
        (Pending(), ["tcp-backlog"]),
        (Pending(frozenset(["tcp-backlog"])), []),  # a task before this one puts the file right
        (Pending(frozenset(["databases"]), frozenset(["databases"])), ["databases", "tcp-backlog"]),
    ],
)
def test_what_earlier_tasks_would_have_done_in_check_mode(pending, names):
    in_file, live = {"tcp-backlog": "600", "databases": "16"}, {"tcp-backlog": "511", "databases": "16"}
    reasons = directive_reasons(in_file, live, {}, pending)
    assert [reason.split(":")[0] for reason in reasons] == names


@pytest.mark.parametrize(
    ("declared", "process", "ceiling", "names"),
    [
        ({"LimitNOFILE": "65535"}, Process(open_files=10240), None, ["LimitNOFILE"]),
        ({"LimitNOFILE": "65535"}, Process(open_files=65535), None, []),
        ({"LimitNOFILE": "65535"}, Process(open_files=100000), None, []),
        ({"LimitNOFILE": "65535"}, Process(open_files=20000), 20000, []),
        ({"LimitNOFILE": "65535"}, Process(open_files=10000), 20000, ["LimitNOFILE"]),
        ({"LimitNOFILE": "65535"}, Process(), None, []),
        ({"UMask": "0007"}, Process(umask=0o007), None, []),
        ({"UMask": "7"}, Process(umask=0o007), None, []),
        ({"UMask": "0007"}, Process(umask=0o077), None, ["UMask"]),
        ({"UMask": "0007"}, Process(), None, []),
        ({"OOMScoreAdjust": "-800"}, Process(oom_score_adj=0), None, ["OOMScoreAdjust"]),
        ({"OOMScoreAdjust": "-800"}, Process(oom_score_adj=-800), None, []),
        ({"OOMScoreAdjust": "-800"}, Process(oom_score_adj=0), 20000, []),  # a container that cannot give it
        ({"Restart": "always"}, Process(10, 0, 0), None, []),
        ({}, Process(replaced="/usr/bin/redis-server"), None, ["program"]),
    ],
)
def test_what_the_unit_gives_at_a_start_only(declared, process, ceiling, names):
    reasons = process_reasons(declared, process, ceiling)
    assert [reason.split(":")[0] for reason in reasons] == names


@pytest.mark.parametrize(("moves", "due"), [("no", True), ("yes", False), ("relative", False), ("absolute", False)])
def test_a_score_that_redis_moves_itself_is_no_reason(moves, due):
    process = Process(oom_score_adj=-600)
    assert bool(process_reasons({"OOMScoreAdjust": "-800"}, process, None, moves)) == due


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ({}, False),
        ({"supervised": "systemd"}, False),
        ({"appendonly": "yes"}, False),
        ({"appendonly": "no"}, True),
        ({"dir": "/x"}, True),
        ({"save": "900 1"}, False),
        ({"save": ""}, True),
    ],
)
def test_the_units_command_line(overrides, refused):
    if refused:
        assert code_of(require_overrides, overrides, AOF) == "command_line_override"
    else:
        require_overrides(overrides, AOF)


def test_the_process_must_be_the_units():
    require_is_the_units("redis", {"MainPID": "12"}, 12)
    assert code_of(require_is_the_units, "redis", {"MainPID": "0"}, 12) == "not_the_units_process"
    assert code_of(require_is_the_units, "redis", {"MainPID": "13"}, 12) == "not_the_units_process"
    assert code_of(require_is_the_units, "redis", {}, 12) == "not_the_units_process"


MANIFEST = AofManifest((AofFile("a", 1, "b"),))


@pytest.mark.parametrize(
    ("in_file", "files", "code"),
    [
        (AOF, {}, None),
        (RDB, {}, None),
        (RDB, {"rdb_bytes": 1}, None),
        (AOF, {"manifest": MANIFEST}, None),
        (AOF, {"old_style_aof": True}, None),
        (AOF, {"rdb_bytes": 1, "rdb_mtime": 2.0, "manifest": MANIFEST, "aof_mtime": 1.0}, None),
        (AOF, {"rdb_bytes": 1}, "start_would_be_empty"),
        (AOF, {"orphans": ("a",)}, "start_would_be_empty"),
        (AOF, {"manifest": MANIFEST, "missing": ("a",)}, "aof_incomplete"),
        (RDB, {"manifest": MANIFEST}, "aof_switched_off"),
        (RDB, {"old_style_aof": True}, "aof_switched_off"),
        (RDB, {"rdb_bytes": 1, "rdb_mtime": 2.0, "manifest": MANIFEST, "aof_mtime": 1.0}, None),
        (RDB, {"rdb_bytes": 1, "rdb_mtime": 1.0, "manifest": MANIFEST, "aof_mtime": 2.0}, "which_is_newer"),
        (RDB, {"rdb_bytes": 1, "old_style_aof": True}, "which_is_newer"),
    ],
)
def test_a_start_may_not_pass_over_data(in_file, files, code):
    disk = DataFiles(place=Place(*(PLACE[name] for name in PLACE)), **files)
    if code:
        assert code_of(require_start, "redis.conf", in_file, disk) == code
    else:
        require_start("redis.conf", in_file, disk)


def holding(keys, **fields):
    return Info({name: str(value) for name, value in fields.items()}, {0: Keyspace(keys, 0)} if keys else {})


@pytest.mark.parametrize(
    ("in_file", "live", "info", "in_use", "code"),
    [
        (RDB, RDB, holding(5), False, None),
        (AOF, AOF, holding(5), True, None),
        (AOF, AOF, holding(5), False, "aof_not_verified"),
        (AOF, AOF, holding(5, aof_last_write_status="ok"), True, None),
        (AOF, AOF, holding(5, aof_last_write_status="err"), True, "aof_write_error"),
        (AOF, RDB, holding(5), False, "aof_differs"),
        (RDB, AOF, holding(5), True, "aof_differs"),
        ({**RDB, "dir": "/new"}, RDB, holding(5), False, "place_differs"),
        ({**AOF, "appendfilename": "new"}, AOF, holding(5), True, "place_differs"),
        ({**AOF, "dir": "/new"}, RDB, holding(0), False, None),
        ({**RDB, "replicaof": "a 1"}, RDB, holding(0), False, "role_differs"),
        (RDB, {**RDB, "replicaof": "a 1"}, holding(5), False, "role_differs"),
        ({**RDB, "maxmemory": "9"}, {**RDB, "maxmemory": "0"}, holding(5, used_memory=10), False, "maxmemory_too_low"),
        ({**RDB, "databases": "1"}, RDB, Info({}, {3: Keyspace(1, 0)}), False, "databases_too_few"),
        ({**RDB, "cluster-enabled": "yes"}, RDB, holding(5), False, "cluster_with_keys"),
    ],
)
def test_a_restart_must_find_what_the_process_holds(in_file, live, info, in_use, code):
    if code:
        assert code_of(require_restart, in_file, live, info, in_use) == code
    else:
        require_restart(in_file, live, info, in_use)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"dir": "/new"}, None),
        ({"appendonly": "yes"}, None),
        ({"replicaof": "a 1"}, "role_differs"),
        ({"databases": "0"}, "databases_too_few"),
    ],
)
def test_what_the_same_run_mends_is_no_refusal_in_check_mode(more, code):
    """Places and AOF are redis_persistence's to repair; a role and what does not fit are nobody's."""
    arguments = ({**RDB, **more}, RDB, holding(5), False, True)
    if code:
        assert code_of(require_restart, *arguments) == code
    else:
        require_restart(*arguments)


@pytest.mark.parametrize(
    ("reported", "have", "same"),
    [
        ("", "", True),
        ("no one", "", True),
        ("a 1", "a 1", True),
        ("a 1", "", False),
        ("", "a 1", False),
        ("a 1", "b 1", False),
    ],
)
def test_a_restart_does_not_change_the_role(reported, have, same):
    if same:
        require_role({"replicaof": reported}, {"replicaof": have})
    else:
        assert code_of(require_role, {"replicaof": reported}, {"replicaof": have}) == "role_differs"


@pytest.mark.parametrize(
    ("fields", "sentinel", "refused"),
    [
        ({"role": "master", "connected_slaves": 2}, True, True),
        ({"role": "master", "connected_slaves": 1, "cluster_enabled": 1}, False, True),
        ({"role": "master", "connected_slaves": 2}, False, False),  # nobody would promote one of them
        ({"role": "master", "connected_slaves": 0}, True, False),
        ({"role": "slave", "connected_slaves": 1}, True, False),
        ({"role": "slave", "cluster_enabled": 1}, False, False),
    ],
)
def test_a_primary_that_would_be_failed_over(fields, sentinel, refused):
    if refused:
        assert code_of(require_primary, holding(1, **fields), sentinel) == "primary_is_watched"
    else:
        require_primary(holding(1, **fields), sentinel)


@pytest.mark.parametrize(
    ("exec_start", "refused"),
    [
        ("{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis/redis.conf --daemonize no ; }", False),
        ("{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis//redis.conf ; }", False),
        ("{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/redis.conf ; }", True),
        ("{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server --port 0 ; }", False),
        ("{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server ; }", False),
        ("", False),
    ],
)
def test_the_units_file(exec_start, refused):
    if refused:
        assert code_of(require_unit_file, exec_start, "/etc/redis/redis.conf") == "other_config_file"
    else:
        require_unit_file(exec_start, "/etc/redis/redis.conf")


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({0: Keyspace(10, 0)}, {0: Keyspace(10, 0)}, False),
        ({0: Keyspace(10, 0)}, {0: Keyspace(12, 0)}, False),
        ({0: Keyspace(10, 0)}, {0: Keyspace(9, 0)}, True),
        ({0: Keyspace(10, 0)}, {}, True),
        ({0: Keyspace(10, 4)}, {0: Keyspace(6, 0)}, False),  # those with a time to live may be gone
        ({0: Keyspace(10, 4)}, {0: Keyspace(9, 4)}, True),
        ({0: Keyspace(10, 0), 3: Keyspace(5, 0)}, {0: Keyspace(15, 0)}, True),
        ({}, {0: Keyspace(1, 0)}, False),
    ],
)
def test_keys_after_a_restart(before, after, lost):
    assert missing_keys(before, after, [])[0] == lost


def test_missing_keys_are_counted_by_database():
    words = missing_keys({0: Keyspace(10, 0), 3: Keyspace(5, 0)}, {0: Keyspace(8, 0)}, ["info", "ping"])[1]
    assert "2 in db0" in words
    assert "5 in db3" in words


@pytest.mark.parametrize(
    "command", ["del", "flushall", "expire", "eval", "brpop", "setex", "zpopmin", "new-in-redis-9"]
)
def test_where_clients_did_more_than_read_a_count_proves_nothing(command):
    lost, words = missing_keys({0: Keyspace(10, 0)}, {}, ["info", "get", command])
    assert not lost
    assert "not known" in words


@pytest.mark.parametrize("command", ["get", "info", "config", "ping", "scan", "replconf"])
def test_commands_that_take_no_key_away_leave_the_proof(command):
    assert missing_keys({0: Keyspace(10, 0)}, {}, [command])[0]


def test_a_unit_that_cannot_be_managed():
    assert unit_problem("redis", {"LoadState": "loaded"}) is None
    assert unit_problem("redis", {"LoadState": "not-found"}).code == "no_unit"
    assert unit_problem("redis", {}).code == "no_unit"


def unit(enabled=True):
    return DeclaredUnit("redis", "/units/zz.conf", {"UMask": "0007"}, "[Service]\nUMask=0007\n", enabled, 0o660)


@pytest.mark.parametrize(
    ("enabled", "state", "drop_in", "fresh", "actions"),
    [
        (True, "enabled", "[Service]\nUMask=0007\n", False, []),
        (True, "alias", "[Service]\nUMask=0007\n", False, []),
        (True, "enabled", "", False, ["write /units/zz.conf and reload systemd"]),
        (True, "disabled", "[Service]\nUMask=0007\n", False, ["enable redis"]),
        (False, "enabled-runtime", "[Service]\nUMask=0007\n", False, ["disable redis"]),
        (False, "static", "[Service]\nUMask=0007\n", False, []),
        # of a host that this run brought, nothing counts as there
        (True, "enabled", "[Service]\nUMask=0007\n", True, ["write /units/zz.conf and reload systemd", "enable redis"]),
    ],
)
def test_what_a_unit_lacks(enabled, state, drop_in, fresh, actions):
    changes = plan_unit(unit(enabled), {"UnitFileState": state}, drop_in, fresh)
    assert [change.action for change in changes] == actions
    assert [change.before for change in changes if change.layer == "unit" and not drop_in] == [None] * (not drop_in)
