# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signing on the controller. The requests are made with the cryptography package, the judge is openssl."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.plugin_utils.authority import Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support import pki

NAMES = ["redis-1.example.org", "192.0.2.1"]


def request(*names):
    private = pki.server(pki.authority()).private
    alternatives = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki._name("whatever it says"))
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def judged(tmp_path, signed, ca, *purpose):
    (tmp_path / "signed.pem").write_text(signed)
    (tmp_path / "ca.pem").write_text(ca.pem)
    done = subprocess.run(
        ["openssl", "verify", "-no-CApath", "-CAfile", "ca.pem", "-untrusted", "signed.pem", *purpose, "signed.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() + done.stderr


def text_of(signed):
    return subprocess.run(
        ["openssl", "x509", "-noout", "-text"], input=signed, capture_output=True, text=True, check=True
    ).stdout


def test_what_is_signed(tmp_path):
    ca = pki.authority()
    signed = Authority(ca.pem, ca.key, None).sign(request(*NAMES), NAMES, False, 30)
    for purpose in ("sslserver", "sslclient"):
        assert judged(tmp_path, signed, ca, "-purpose", purpose, "-x509_strict") == "signed.pem: OK"
    text = text_of(signed)
    assert "DNS:redis-1.example.org, IP Address:192.0.2.1" in text
    assert "Subject: CN = redis-1.example.org" in text
    assert "CA:FALSE" in text
    assert "whatever it says" not in text
    certificate = x509.load_pem_x509_certificate(signed.encode())
    assert (
        datetime.timedelta(days=30)
        <= certificate.not_valid_after_utc - certificate.not_valid_before_utc
        < datetime.timedelta(days=30, hours=2)
    )


def test_the_chain_of_an_intermediate(tmp_path):
    root = pki.authority("Root")
    between = pki.authority("Between", signed_by=root)
    signed = Authority(between.pem + root.pem, between.key, None).sign(request(*NAMES), NAMES, False, 30)
    assert signed.count("BEGIN CERTIFICATE") == 2
    assert judged(tmp_path, signed, root) == "signed.pem: OK"


def test_nothing_outlives_its_authority():
    ca = pki.authority(days=10)
    certificate = x509.load_pem_x509_certificate(
        Authority(ca.pem, ca.key, None).sign(request(*NAMES), NAMES, False, 397).encode()
    )
    assert certificate.not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("asked", "any_address"),
    [
        (["redis-2.example.org"], True),
        (["redis-1.example.org", "*.example.org"], True),
        (["redis-1.example.org", "192.0.2.99"], False),
    ],
)
def test_a_host_gets_only_what_was_declared_for_it(asked, any_address):
    ca = pki.authority()
    with pytest.raises(Problem) as error:
        Authority(ca.pem, ca.key, None).sign(request(*asked), NAMES, any_address, 30)
    assert error.value.code == "request_refused"
    assert asked[-1] in error.value.detected


def test_own_addresses_are_the_hosts_to_say():
    ca = pki.authority()
    assert "192.0.2.99" in text_of(Authority(ca.pem, ca.key, None).sign(request(*NAMES, "192.0.2.99"), NAMES, True, 30))


def test_a_request_that_somebody_changed():
    ca = pki.authority()
    good = request(*NAMES)
    der = bytearray(x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"whatever")] ^= 1
    bad = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(Problem, match="its signature is wrong"):
        Authority(ca.pem, ca.key, None).sign(bad, NAMES, False, 30)


def test_an_authority_with_a_passphrase():
    ca = pki.authority()
    assert Authority(ca.pem, ca.key_with("au7hority"), "au7hority").subject == "CN=Test CA"


def test_an_authority_with_another_kind_of_key(tmp_path):
    private = ed25519.Ed25519PrivateKey.generate()
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(pki._name("Ed")).issuer_name(pki._name("Ed")).public_key(private.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(private, None)
    )  # fmt: skip
    ca = pki.Pair(certificate, private)
    assert (
        judged(tmp_path, Authority(ca.pem, ca.key, None).sign(request(*NAMES), NAMES, False, 5), ca) == "signed.pem: OK"
    )


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("certificate_unreadable", lambda ca: ("no certificate", ca.key, None)),
        ("ca_key_unreadable", lambda ca: (ca.pem, "no key", None)),
        ("ca_key_unreadable", lambda ca: (ca.pem, ca.key_with("s3same"), None)),
        ("ca_key_unreadable", lambda ca: (ca.pem, ca.key_with("s3same"), "wr0ng")),
        ("ca_key_mismatch", lambda ca: (ca.pem, pki.authority().key, None)),
        ("ca_key_mismatch", lambda ca: (pki.authority().pem + ca.pem, ca.key, None)),
        ("ca_is_none", lambda ca: (lambda pair: (pair.pem, pair.key, None))(pki.server(ca))),
        ("ca_expired", lambda ca: (lambda old: (old.pem, old.key, None))(pki.authority(days=-1, since=-9))),
    ],
)
def test_what_is_no_authority(code, make):
    ca = pki.authority()
    with pytest.raises(Problem) as error:
        Authority(*make(ca))
    assert error.value.code == code
    assert "s3same" not in error.value.message()
    assert "wr0ng" not in error.value.message()
