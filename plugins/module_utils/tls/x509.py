# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as text: PEM blocks, what `openssl x509` prints, and the names that a certificate is for."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import hashlib
import ipaddress
import re
import ssl
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem

__all__ = [
    "Certificate", "certificates_of", "covers", "der_of", "fingerprint_of", "host_addresses", "is_address", "is_encrypted", "key_of",
    "name_of", "parse_x509", "stamp",
]  # fmt: skip

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.S)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DNS = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LONGEST_NAME = 253


@dataclasses.dataclass(frozen=True)
class Certificate:
    """One certificate. Times are seconds since 1970; ``names`` are DNS names in lower case and addresses in short form."""

    subject: str
    issuer: str
    serial: str
    not_before: int
    not_after: int
    names: tuple[str, ...]
    fingerprint: str


def _blocks(pem: str, kind: str) -> list[str]:
    text = pem.replace("\r\n", "\n")
    return [match.group(0) + "\n" for match in _BLOCK.finditer(text) if match.group(1).endswith(kind)]


def certificates_of(pem: str) -> list[str]:
    """The certificates in a text, each as PEM; a key, or anything else that stands next to them, is left out."""
    return _blocks(pem, "CERTIFICATE")


def key_of(pem: str) -> t.Optional[str]:
    """The first private key in a text, as PEM; None where there is none."""
    found = _blocks(pem, "PRIVATE KEY")
    return found[0] if found else None


def is_encrypted(key: str) -> bool:
    """Whether a private key can only be read with its passphrase."""
    return "BEGIN ENCRYPTED PRIVATE KEY" in key or "Proc-Type: 4,ENCRYPTED" in key


def der_of(pem: str) -> bytes:
    """The bytes of one PEM block; none where it is damaged."""
    try:
        return base64.b64decode(re.sub(r"-----[^-]+-----|\s", "", pem), validate=True)
    except (binascii.Error, ValueError):
        return b""


def fingerprint_of(der: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def stamp(seconds: int) -> str:
    """A time in UTC, as ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def name_of(text: str) -> str:
    """A DNS name in lower case, or an address in its short form. Raises Problem for what is neither."""
    if is_address(text):
        return str(ipaddress.ip_address(text))
    name = text.rstrip(".")
    if not _DNS.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise Problem(
            "invalid_value", f"names: {text!r} is neither a host name nor an address", "names that a certificate can carry",
            "correct it, or take it out",
        )  # fmt: skip
    return name.lower()


def covers(names: t.Iterable[str], wanted: str) -> bool:
    """Whether a certificate for ``names`` is good for ``wanted``: by the name itself, or by a wildcard for its first label."""
    return any(name in (wanted, "*." + wanted.partition(".")[2]) for name in names)


def parse_x509(text: str, der: bytes) -> Certificate:
    """What C(openssl x509 -noout -subject -issuer -serial -dates -ext subjectAltName) prints. Raises ValueError.

    Openssl prints the lines in its own order, which differs between versions.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition("=")
        if found and key in ("subject", "issuer", "serial", "notBefore", "notAfter"):
            fields[key] = value.strip()
    names = []
    alternatives = re.search(r"Subject Alternative Name:[^\n]*\n\s*([^\n]+)", text)
    for entry in alternatives.group(1).split(", ") if alternatives else []:
        kind, _, value = entry.strip().partition(":")
        if kind == "DNS":
            names.append(value.lower())
        elif kind == "IP Address" and is_address(value):
            names.append(str(ipaddress.ip_address(value)))
    missing = {"subject", "issuer", "serial", "notBefore", "notAfter"} - set(fields)
    if missing:
        raise ValueError(f"openssl x509 did not say {', '.join(sorted(missing))}")
    return Certificate(
        fields["subject"], fields["issuer"], fields["serial"], ssl.cert_time_to_seconds(fields["notBefore"]),
        ssl.cert_time_to_seconds(fields["notAfter"]), tuple(names), fingerprint_of(der),
    )  # fmt: skip


def host_addresses(fib_trie: str, if_inet6: str) -> list[str]:
    """The host's own addresses, from /proc/net/fib_trie and /proc/net/if_inet6; link-local ones are left out."""
    found = {"127.0.0.1"}
    for match in re.finditer(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", fib_trie):
        found.add(match.group(1))
    for line in if_inet6.splitlines():
        digits = line.split(" ", 1)[0]
        if re.fullmatch(r"[0-9a-f]{32}", digits):
            found.add(str(ipaddress.IPv6Address(int(digits, 16))))
    return sorted(address for address in found if not ipaddress.ip_address(address).is_link_local)
