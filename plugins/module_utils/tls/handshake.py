# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS handshakes: a test-load within this process, and the real one with a server on this host."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.tls.openssl import in_memory

__all__ = ["Identity", "Seen", "greet", "local_handshake"]

_TIMEOUT_SECONDS = 5.0
#: X509_V_ERR_* of OpenSSL.
_EXPIRED, _NOT_YET, _PURPOSE = 10, 9, 26
#: X509_V_FLAG_PARTIAL_CHAIN; Python has a name for it from 3.10 on.
_PARTIAL_CHAIN = 0x80000


@dataclasses.dataclass(frozen=True)
class Identity:
    """A certificate with its key, as PEM."""

    certificate: str
    key: str
    passphrase: t.Optional[str] = None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises Problem where OpenSSL takes the two not as a pair. The key itself must have been read before."""
        with in_memory(self.certificate) as certificate, in_memory(self.key) as key:
            try:
                context.load_cert_chain(
                    f"/proc/self/fd/{certificate}", f"/proc/self/fd/{key}", password=lambda: self.passphrase or ""
                )
            except ssl.SSLError as error:
                if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                    raise Problem(
                        "key_mismatch", "the private key does not belong to the certificate", "the key that the certificate was made for",
                        "look which of the two is an older one",
                    ) from None  # fmt: skip
                raise Problem(
                    "certificate_untrusted", f"OpenSSL does not take the certificate: {error.reason or error}",
                    "a certificate and key that OpenSSL takes at its level of security", "make them anew, with a key of usual size",
                ) from None  # fmt: skip


def _judge(error: ssl.SSLCertVerificationError, purpose: str) -> Problem:
    words = error.verify_message.strip()
    if error.verify_code in (_EXPIRED, _NOT_YET):
        return Problem(
            "ca_expired", f"the authority of the certificate is not valid now: {words}", "an authority that is valid",
            "use a new authority, and a certificate of it",
        )  # fmt: skip
    if error.verify_code == _PURPOSE:
        return Problem(
            "certificate_purpose",
            f"the certificate is not for TLS {purpose}s: {words}",
            "extended key usage serverAuth, and clientAuth as well where replication or the cluster bus use TLS",
            "make one with both purposes",
        )
    return Problem(
        "certificate_untrusted",
        f"the certificate does not lead to an authority in the CA file: {words}",
        "a certificate that an authority of that file signed, with the certificates between the two",
        "use the authority that signed it, and put those between the two behind the certificate",
    )


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """One handshake between two contexts of this process."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    left = list(sides)
    for _ in range(20):
        for side in list(left):
            try:
                side.do_handshake()
                left.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not left:
            return
    raise ssl.SSLError("the handshake did not end")


def local_handshake(identity: Identity, ca: str, as_client: bool, anchored: bool = False) -> None:
    """Verify that a server with ``identity`` is believed by who trusts ``ca`` (and as a client, where it will be one).

    Dates, chain, purposes and the match of key and certificate are OpenSSL's to judge, as they will be. ``anchored``: an
    authority in ``ca`` is trusted by itself, whoever signed it. Raises Problem.
    """
    purposes = [("server", ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    if as_client:
        purposes.append(("client", ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
    for purpose, mine, theirs in purposes:
        bearer, judge = ssl.SSLContext(mine), ssl.SSLContext(theirs)
        identity.load_into(bearer)
        if purpose == "client":
            identity.load_into(judge)
        for context in (bearer, judge):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        judge.verify_mode = ssl.CERT_REQUIRED
        if anchored:
            judge.verify_flags |= _PARTIAL_CHAIN
        try:
            judge.load_verify_locations(cadata=ca)
            server, client = (bearer, judge) if purpose == "server" else (judge, bearer)
            _shake(server, client)
        except ssl.SSLCertVerificationError as error:
            raise _judge(error, purpose) from None
        except ssl.SSLError as error:
            raise Problem(
                "certificate_untrusted",
                f"a TLS handshake with this certificate fails: {error.reason or error}",
                "a certificate and an authority that OpenSSL takes at its level of security",
                "make them anew, with keys of usual size and SHA-256",
            ) from None


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a handshake with a live server showed; ``certificate`` is DER, ``trouble`` why there was no whole greeting."""

    certificate: t.Optional[bytes] = None
    answered: bool = False
    wants_certificate: bool = False
    trouble: str = ""


def greet(host: str, port: int, identity: t.Optional[Identity] = None, ca: t.Optional[str] = None) -> Seen:
    """Shake hands and say PING. With ``ca`` the server's certificate is verified, without it only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    seen = Seen()
    try:
        if ca:
            context.load_verify_locations(cadata=ca)
        if identity:
            identity.load_into(context)
    except (Problem, ssl.SSLError) as error:
        return Seen(trouble=str(error))
    try:
        with socket.create_connection((host, port), _TIMEOUT_SECONDS) as plain, context.wrap_socket(plain) as link:
            seen = Seen(link.getpeercert(binary_form=True))
            link.sendall(b"PING\r\n")
            answer = link.recv(1)
            return dataclasses.replace(
                seen, answered=answer in (b"+", b"-"), trouble="" if answer else "no answer to PING"
            )
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        wants = "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and identity is None)
        return dataclasses.replace(seen, wants_certificate=wants, trouble=reason)
    except OSError as error:
        return dataclasses.replace(seen, trouble=error.strerror or str(error))
