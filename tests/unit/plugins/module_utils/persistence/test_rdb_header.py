# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The header of an RDB: what Redis 7.0.15 wrote, and what nobody should."""

from __future__ import annotations

import io

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.persistence.rdb_header import (
    RdbHeaderError,
    read_header,
)
from hypothesis import given
from hypothesis import strategies as st

# Redis 7.0.15: the base of an AOF after BGREWRITEAOF, its first bytes (then a function and the end)
BASE = bytes.fromhex(
    "524544495330303130fa0972656469732d76657206372e302e3135fa0a72656469732d62697473c040fa056374696d65c2b7fb056b"
    "fa08757365642d6d656dc280c01100fa08616f662d62617365c001f5"
)


def field(name: bytes, value: bytes) -> bytes:
    return b"\xfa" + bytes([len(name)]) + name + value


def test_the_base_of_an_aof_as_redis_wrote_it():
    found = read_header(BASE)
    assert (found.magic, found.version, found.ctime, found.number("aof-base")) == ("REDIS", 10, 1795554231, 1)
    assert found.aux == {
        "redis-ver": "7.0.15", "redis-bits": "64", "ctime": "1795554231", "used-mem": "1163392", "aof-base": "1",
    }  # fmt: skip


def test_a_file_is_read_no_further_than_its_header():
    handle = io.BytesIO(BASE + b"x" * 100)
    assert read_header(handle) == read_header(BASE)
    assert handle.tell() == len(BASE)


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"\x03abc", "abc"),
        (b"\x40\x41" + b"r" * 65, "r" * 65),
        (b"\x80\x00\x00\x00\x02ab", "ab"),
        (b"\x81" + b"\x00" * 7 + b"\x02ab", "ab"),
        (b"\xc0\xff", "-1"),
        (b"\xc1\x00\x80", "-32768"),
        (b"\xc2\xff\xff\xff\x7f", "2147483647"),
        (b"\xc3\x06\x0b\x00a\xe0\x00\x00\x00", None),  # unpacks to another length than it says
        (b"\xc3\x05\x0a\x00a\xe0\x00\x00", "a" * 10),
        (b"\xc3\x04\x03\x02abc", "abc"),
        (b"\xc3\x02\x03\x20\x05", None),  # refers to what is before the beginning
        (b"\xc4", None),
        (b"\x82", None),
    ],
)
def test_values_in_every_packing(packed, text):
    data = b"REDIS0010" + field(b"name", packed) + b"\xff"
    if text is None:
        with pytest.raises(RdbHeaderError):
            read_header(data)
    else:
        assert read_header(data).aux == {"name": text}


def test_valkey_has_its_own_magic():
    found = read_header(b"VALKEY080" + field(b"valkey-ver", b"\x059.0.0") + b"\xfe")
    assert (found.magic, found.version, found.aux, found.ctime) == ("VALKEY", 80, {"valkey-ver": "9.0.0"}, None)


@pytest.mark.parametrize("length", range(len(BASE)))
def test_a_header_that_was_cut_off(length):
    with pytest.raises(RdbHeaderError):
        read_header(BASE[:length])


@pytest.mark.parametrize("data", [b"", b"*2\r\n$6\r\nSELECT", b"redis0010\xff", b"\x7fELF" + b"\x00" * 20])
def test_what_is_no_rdb(data):
    with pytest.raises(RdbHeaderError):
        read_header(data)


@pytest.mark.parametrize(
    "length",
    [
        b"\x80\xff\xff\xff\xff",
        b"\x81" + b"\xff" * 8,
        b"\xc3\x80\xff\xff\xff\xff\x01",
        b"\xc3\x01\x80\xff\xff\xff\xff\x00",
    ],
)
def test_no_length_is_believed(length):
    class Watched(io.BytesIO):
        asked = 0

        def read(self, size=-1):
            self.asked = max(self.asked, size)
            return super().read(size)

    handle = Watched(b"REDIS0010\xfa" + length + b"x" * 100_000)
    with pytest.raises(RdbHeaderError):
        read_header(handle)
    assert 0 < handle.asked <= 64 * 1024


def test_fields_without_end():
    with pytest.raises(RdbHeaderError, match="fields"):
        read_header(b"REDIS0010" + field(b"a", b"\x01b") * 5000)


@given(st.binary(max_size=400), st.sampled_from([b"", b"REDIS0010", b"VALKEY080", BASE[:-1], BASE[:60]]))
def test_any_bytes_give_a_header_or_the_error(data, before):
    try:
        found = read_header(before + data)
    except RdbHeaderError:
        with pytest.raises(RdbHeaderError):
            read_header(io.BytesIO(before + data))
    else:
        assert found.magic in ("REDIS", "VALKEY")
        assert read_header(io.BytesIO(before + data)) == found
