# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Data of every type in several databases, with times to live, binary keys, stream groups and a function; written by redis-cli."""

from __future__ import annotations

import subprocess
import typing as t

SCRIPT = """
for i = 1, 300 do redis.call('SET', 'string:'..i, string.rep('v', i)) end
redis.call('SET', 'binary:\\0\\r\\n\\255', '\\0\\1\\r\\n#TS:1\\r\\n\\255')
redis.call('HSET', 'hash', 'a', 1, 'b', '\\0\\255') redis.call('SADD', 'set', 'x', 'y', '\\0') redis.call('SADD', 'numbers', 1, 2, 3)
for i = 1, 200 do redis.call('ZADD', 'zset', i, 'm'..i) redis.call('RPUSH', 'list', i) redis.call('HSET', 'large', 'f'..i, string.rep('x', 100)) end
redis.call('PFADD', 'hll', 'a', 'b', 'c') redis.call('SETBIT', 'bits', 1000, 1) redis.call('GEOADD', 'geo', 13.361389, 38.115556, 'Palermo')
for i = 1, 20 do redis.call('XADD', 'stream', i..'-1', 'field', 'value'..i) end
redis.call('XGROUP', 'CREATE', 'stream', 'group', '0') redis.call('XREADGROUP', 'GROUP', 'group', 'me', 'COUNT', 3, 'STREAMS', 'stream', '>')
redis.call('SET', 'short', 'lived', 'PX', 3600000) redis.call('EXPIRE', 'hash', 7200)
for _, db in ipairs({3, 15}) do
  redis.call('SELECT', db)
  for i = 1, 50 do redis.call('SET', 'db'..db..':'..i, i) end
  redis.call('PEXPIRE', 'db'..db..':1', 5000000)
end
"""
FUNCTION = "#!lua name=lab\nredis.register_function('one', function() return 1 end)"


def fill(cli: t.Callable[..., str]) -> None:
    """``cli`` is the server's redis-cli."""
    cli("EVAL", SCRIPT, "0")
    cli("FUNCTION", "LOAD", "REPLACE", FUNCTION)


def keys_in_rdb(path: str) -> int:
    """What redis-check-rdb counts."""
    done = subprocess.run(["redis-check-rdb", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return int(next(line for line in done.stdout.splitlines() if "keys read" in line).split()[1])
