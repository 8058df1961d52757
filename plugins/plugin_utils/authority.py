# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority on the controller: its key is read here, signs here, and goes nowhere."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority"]

_SKEW = datetime.timedelta(hours=1)
_LONGEST_COMMON_NAME = 64


def _public(key: t.Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _end_of(certificate: x509.Certificate) -> datetime.datetime:
    aware = getattr(certificate, "not_valid_after_utc", None)  # cryptography >= 42
    return aware or certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


class Authority:
    """The first certificate of ``ca`` with its key."""

    def __init__(self, ca: str, key: str, passphrase: t.Optional[str]) -> None:
        """Raises Problem where the two are no authority."""
        try:
            chain = x509.load_pem_x509_certificates(ca.encode())
        except ValueError as error:
            raise Problem(
                "certificate_unreadable",
                f"ca holds no certificate that can be read: {error}",
                "PEM",
                "look at ca or ca_src",
            ) from None
        self.certificate, self._others = chain[0], chain[1:]
        try:
            self._key = serialization.load_pem_private_key(key.encode(), passphrase.encode() if passphrase else None)
        except (TypeError, ValueError, UnsupportedAlgorithm):
            raise Problem(
                "ca_key_unreadable", "the authority's key cannot be read with the passphrase that was given (or without one)",
                "a private key in PEM form, and its passphrase if it has one", "look at ca_key or ca_key_src, and at ca_key_passphrase",
            ) from None  # fmt: skip
        if _public(self._key.public_key()) != _public(self.certificate.public_key()):
            raise Problem(
                "ca_key_mismatch", f"the authority's key does not belong to the first certificate of ca, {self.subject}",
                "the key of the first one", "put the authority that issues first, or use its key",
            )  # fmt: skip
        self._require_it_may_sign()

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string()

    def _require_it_may_sign(self) -> None:
        try:
            authority = self.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            authority = False
        if not authority:
            raise Problem(
                "ca_is_none", f"{self.subject} is no authority: clients would not believe what it signs",
                "a certificate with the basic constraint CA:TRUE", "use the authority's certificate, not a server's",
            )  # fmt: skip
        if _end_of(self.certificate) <= datetime.datetime.now(datetime.timezone.utc):
            raise Problem(
                "ca_expired", f"the authority {self.subject} expired at {_end_of(self.certificate):%Y-%m-%dT%H:%M:%SZ}",
                "an authority that is valid", "use a new authority",
            )  # fmt: skip

    def sign(self, request_pem: str, names: t.Sequence[str], any_address: bool, valid_days: int) -> str:
        """A certificate for the request, as PEM, with the certificates that lead from it to a root.

        Host names have to be among ``names``; so have addresses, unless ``any_address``. Raises Problem.
        """
        request = x509.load_pem_x509_csr(request_pem.encode())
        wanted = self._names_of(request)
        undeclared = [
            str(entry.value)
            for entry in wanted
            if str(entry.value) not in names and not (any_address and isinstance(entry, x509.IPAddress))
        ]
        if undeclared or not request.is_signature_valid:
            raise Problem(
                "request_refused", f"the host asks for a certificate that was not declared: {', '.join(undeclared) or 'its signature is wrong'}",
                "a request for the declared names", "find out what runs on that host",
            )  # fmt: skip
        now = datetime.datetime.now(datetime.timezone.utc)
        public = request.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(wanted[0].value)[:_LONGEST_COMMON_NAME])])
            )
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + datetime.timedelta(days=valid_days), _end_of(self.certificate)))
            .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(isinstance(public, rsa.RSAPublicKey)), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._authority_key(), critical=False)
        )
        own_hash = isinstance(self._key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
        signed = builder.sign(self._key, None if own_hash else hashes.SHA256())
        return "".join(entry.public_bytes(serialization.Encoding.PEM).decode() for entry in [signed, *self._between()])

    @staticmethod
    def _names_of(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [entry for entry in found if isinstance(entry, (x509.DNSName, x509.IPAddress))]

    def _authority_key(self) -> x509.AuthorityKeyIdentifier:
        try:
            mine = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(mine)

    def _between(self) -> list[x509.Certificate]:
        """The issuing authority and those above it, where it is no root: a client knows the root only."""
        chain, current = [], self.certificate
        while current.issuer != current.subject and current not in chain:
            chain.append(current)
            above = [entry for entry in self._others if entry.subject == current.issuer and _signed_by(current, entry)]
            if not above:
                break
            current = above[0]
        return chain


def _signed_by(one: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(other)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _usage(encipher: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=encipher, content_commitment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
