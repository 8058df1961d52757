# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates as openssl prints them (fixtures/record_tls.py recorded it)."""

from __future__ import annotations

import hashlib
import pathlib
import ssl

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import (
    certificates_of,
    covers,
    der_of,
    fingerprint_of,
    host_addresses,
    is_encrypted,
    key_of,
    name_of,
    parse_x509,
    stamp,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support import pki

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "tls"

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.10
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
     +-- 169.254.0.0/16 2 0 2
           |-- 169.254.7.7
              /32 host LOCAL
"""
IF_INET6 = """20010db8000000000000000000000001 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def recorded(name):
    text = next(RECORDED.glob(f"openssl-*-x509-{name}.txt")).read_text()
    pem = next(RECORDED.glob(f"openssl-*-x509-{name}.pem")).read_text()
    return parse_x509(text, der_of(pem)), pem


def test_a_servers_certificate():
    certificate, pem = recorded("redis")
    assert certificate.subject == "CN=redis-1.example.org,O=Example\\, Inc."
    assert certificate.issuer == "CN=Redis CA,O=Example"
    assert certificate.names == ("redis-1.example.org", "*.example.org", "192.0.2.10", "2001:db8::1")
    assert certificate.not_after - certificate.not_before == 397 * 86400
    assert certificate.fingerprint == hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_an_authoritys_certificate_has_no_names():
    certificate, _ = recorded("ca")
    assert certificate.subject == certificate.issuer == "CN=Redis CA,O=Example"
    assert certificate.names == ()


def test_what_is_no_answer_of_openssl():
    with pytest.raises(ValueError, match="notAfter"):
        parse_x509("subject=CN=x\nissuer=CN=y\nserial=01\nnotBefore=Nov 23 15:50:02 2026 GMT\n", b"")


def test_blocks_of_a_text():
    ca = pki.authority()
    pair = pki.server(ca)
    text = f"subject: x\r\n{pair.key}\nnoise\n{pair.pem}{ca.pem}".replace("\n", "\r\n")
    assert certificates_of(text) == [pair.pem, ca.pem]
    assert key_of(text) == pair.key
    assert certificates_of(pair.key) == []
    assert key_of(pair.pem) is None


def test_encrypted_keys():
    pair = pki.server(pki.authority())
    assert is_encrypted(pair.key_with("secret"))
    assert is_encrypted("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")
    assert not is_encrypted(pair.key)


@given(st.binary())
def test_bytes_come_back_from_pem(content):
    assert der_of(ssl.DER_cert_to_PEM_cert(content)) == content
    assert fingerprint_of(content) == hashlib.sha256(content).hexdigest()


@given(st.text())
def test_damage_is_no_exception(text):
    assert isinstance(der_of(text), bytes)
    assert isinstance(certificates_of(text), list)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Redis-1.Example.org.", "redis-1.example.org"),
        ("*.example.org", "*.example.org"),
        ("localhost", "localhost"),
        ("redis_1", "redis_1"),
        ("2001:0DB8:0::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_names(text, name):
    assert name_of(text) == name


@pytest.mark.parametrize("text", ["", ".", "a b", "a,b", "-a", "a..b", "a.*.b", "$x", "a\nb", "x" * 254, "ä.example"])
def test_what_is_no_name(text):
    with pytest.raises(Problem) as error:
        name_of(text)
    assert error.value.code == "invalid_value"


def test_what_a_certificate_is_good_for():
    names = ("redis.example.org", "*.db.example.org", "192.0.2.1")
    assert covers(names, "redis.example.org")
    assert covers(names, "one.db.example.org")
    assert covers(names, "192.0.2.1")
    assert not covers(names, "a.one.db.example.org")
    assert not covers(names, "db.example.org")
    assert not covers(names, "192.0.2.2")


def test_the_hosts_own_addresses():
    assert host_addresses(FIB_TRIE, IF_INET6) == ["127.0.0.1", "192.0.2.10", "2001:db8::1", "::1"]
    assert host_addresses("", "") == ["127.0.0.1"]


def test_times():
    assert stamp(0) == "1970-01-01T00:00:00Z"
    assert stamp(253402300799) == "9999-12-31T23:59:59Z"
