# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's openssl command. Keys and passphrases reach it by file descriptors, never by arguments or files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import (
    Certificate,
    certificates_of,
    der_of,
    fingerprint_of,
    is_address,
    is_encrypted,
    key_of,
    parse_x509,
)

__all__ = ["in_memory", "make_key", "make_request", "public_key", "read_certificate", "read_certificates"]

_TIMEOUT_SECONDS = 60


@contextlib.contextmanager
def in_memory(text: str) -> t.Iterator[int]:
    """A descriptor of an anonymous file with ``text``; as /proc/self/fd/N it can be opened like one on disk."""
    descriptor = os.memfd_create("redisops")
    try:
        os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _openssl(*args: str, descriptors: t.Sequence[int] = (), text: str = "") -> tuple[int, bytes, str]:
    """Exit code, output, and the last line of what it says of an error. Raises Problem where there is no openssl."""
    binary = shutil.which("openssl")
    if binary is None:
        raise Problem(
            "no_openssl", "there is no openssl command on this host", "openssl", "install the package openssl"
        )
    done = subprocess.run(
        [binary, *args], input=text.encode("utf-8", "surrogateescape"), capture_output=True, pass_fds=descriptors,
        timeout=_TIMEOUT_SECONDS, env=dict(os.environ, LC_ALL="C"), check=False,
    )  # fmt: skip
    stated = done.stderr.decode("utf-8", "replace")
    why = re.search(r":error:[0-9A-F]+:[^:]*:[^:]*:([^:\n]+)", stated) or re.search(r"^(.+)", stated)
    return done.returncode, done.stdout, why.group(1) if why else ""


def read_certificate(pem: str, what: str) -> Certificate:
    """One certificate, ``what`` in the words of an error. Raises Problem."""
    code, output, stated = _openssl(
        "x509", "-noout", "-subject", "-issuer", "-serial", "-startdate", "-enddate", "-nameopt", "RFC2253",
        "-ext", "subjectAltName", text=pem,
    )  # fmt: skip
    try:
        if code != 0:
            raise ValueError(stated)
        return parse_x509(output.decode("utf-8", "replace"), der_of(pem))
    except ValueError as error:
        raise Problem(
            "certificate_unreadable",
            f"{what} holds no certificate that openssl can read: {error}",
            "PEM",
            f"look at {what}",
        ) from None


def read_certificates(pem: str, what: str) -> list[Certificate]:
    """Every certificate in a text, at least one. Raises Problem."""
    found = certificates_of(pem)
    if not found:
        raise Problem(
            "certificate_unreadable",
            f"{what} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
            "PEM; DER is converted by `openssl x509 -inform DER -in FILE -out FILE.pem`",
            f"look at {what}",
        )
    return [read_certificate(block, what) for block in found]


def public_key(key: str, passphrase: t.Optional[str], what: str) -> str:
    """Fingerprint of the public half of a private key. Raises Problem where the key cannot be read, with that passphrase."""
    pem = key_of(key)
    if pem is None:
        raise Problem(
            "key_unreadable",
            f"{what} holds no private key in PEM form",
            "the private key that the certificate was made for, in PEM form",
            f"look at {what}",
        )
    if is_encrypted(pem) and not passphrase:
        raise Problem("key_locked", f"{what} is encrypted", "its passphrase", "set tls_key_file_pass")
    with in_memory(pem) as file, in_memory((passphrase or "") + "\n") as words:
        code, output, stated = _openssl(
            "pkey",
            "-in",
            f"/proc/self/fd/{file}",
            "-passin",
            f"fd:{words}",
            "-pubout",
            "-outform",
            "DER",
            descriptors=[file, words],
        )
    if code == 0:
        return fingerprint_of(output)
    if is_encrypted(pem):
        raise Problem(
            "key_locked", f"{what} cannot be read with tls_key_file_pass", "its passphrase", "correct tls_key_file_pass"
        )
    raise Problem(
        "key_unreadable", f"{what} holds no private key that openssl can read: {stated}", "PEM", f"look at {what}"
    )


def make_key() -> str:
    """A new private key (elliptic curve P-256), as PEM. Raises Problem."""
    code, output, stated = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    pem = key_of(output.decode("ascii", "replace"))
    if code != 0 or pem is None:
        raise Problem(
            "key_not_made",
            f"openssl could not make a key: {stated}",
            "elliptic curve P-256",
            "look at openssl on this host",
        )
    return pem


def make_request(key: str, names: t.Sequence[str]) -> str:
    """A certificate request for ``names``, signed with ``key``. Raises Problem."""
    alternatives = ",".join(f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in names)
    config = (
        "[req]\nprompt = no\nutf8 = yes\ndistinguished_name = subject\nreq_extensions = extensions\n"
        f"[subject]\nCN = {names[0][:64]}\n[extensions]\nsubjectAltName = {alternatives}\n"
    )
    with in_memory(key) as file, tempfile.NamedTemporaryFile("w", prefix="redisops-") as settings:
        settings.write(config)
        settings.flush()
        code, output, stated = _openssl(
            "req", "-new", "-sha256", "-config", settings.name, "-key", f"/proc/self/fd/{file}", descriptors=[file]
        )
    if code != 0:
        raise Problem(
            "request_not_made", f"openssl could not make a certificate request: {stated}", "", "look at names"
        )
    return output.decode("ascii")
