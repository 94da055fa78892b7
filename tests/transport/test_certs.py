from __future__ import annotations

import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509

from flowerpress.transport import certs, issuing
from flowerpress.transport.certs import CertificateError, make_certs, read_certs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "certs"
    make_certs(folder, 2)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "certs"


def certificate(folder, name):
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def extension(folder, name, kind):
    return certificate(folder, name).extensions.get_extension_for_class(kind).value


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def in_days(monkeypatch):
    """Let the modules' clock go `days` ahead."""

    def move(days):
        class Later(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(days=days)

        for module in (certs, issuing):
            monkeypatch.setattr(module, "datetime", Later)

    return move


# --- the files ---


def test_files_and_their_modes(folder):
    written = make_certs(folder, 2)
    names = ["ca", "server", "client-0", "client-1"]
    assert written == [folder / f"{name}.{end}" for name in names for end in ("key", "pem")]
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)


def test_clients_are_added_and_nothing_else_changes(folder):
    make_certs(folder, 2)
    before = contents(folder)
    written = make_certs(folder, 4)
    assert [path.name for path in written] == [
        f"client-{i}.{end}" for i in (2, 3) for end in ("key", "pem")
    ]
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert make_certs(folder, 3) == []
    assert contents(folder) == after


def test_other_hosts_change_the_servers_certificate_alone(folder):
    make_certs(folder, 1)
    before = contents(folder)
    hosts = ["fl.example.org", "10.0.0.1", "::1", "*.lab"]
    assert [path.name for path in make_certs(folder, 1, hosts=hosts)] == ["server.pem"]
    changed = {name for name, data in contents(folder).items() if before[name] != data}
    assert changed == {"server.pem"}
    names = extension(folder, "server", x509.SubjectAlternativeName)
    assert [str(name.value) for name in names] == hosts
    assert make_certs(folder, 1, hosts=hosts[::-1]) == []
    read_certs(folder, "server")


def test_clients_are_added_without_the_other_clients_keys(folder):
    make_certs(folder, 1)
    (folder / "client-0.key").unlink()  # it was moved to the client's host
    assert [path.name for path in make_certs(folder, 2)] == ["client-1.key", "client-1.pem"]


def test_a_certificate_that_was_not_finished_is_made_for_the_key_that_is_there(folder):
    make_certs(folder, 1)
    key = (folder / "client-0.key").read_bytes()
    (folder / "client-0.pem").unlink()
    assert [path.name for path in make_certs(folder, 1)] == ["client-0.pem"]
    assert read_certs(folder, "client-0").key == key


# --- what certificates say ---


def test_each_certificate_is_for_one_purpose(made):
    assert extension(made, "ca", x509.BasicConstraints) == x509.BasicConstraints(True, 0)
    usage = extension(made, "ca", x509.KeyUsage)
    assert usage.key_cert_sign
    assert not usage.digital_signature
    for name, purpose in (("server", "serverAuth"), ("client-1", "clientAuth")):
        cert = certificate(made, name)
        assert cert.subject.rfc4514_string() == f"CN={name}"
        assert not extension(made, name, x509.BasicConstraints).ca
        assert not extension(made, name, x509.KeyUsage).key_cert_sign
        assert [use._name for use in extension(made, name, x509.ExtendedKeyUsage)] == [purpose]
        assert cert.public_key().curve.name == "secp256r1"


def test_certificates_hold_as_long_as_asked_but_no_longer_than_the_authority(folder):
    make_certs(folder, 1, days=30)
    left = certificate(folder, "client-0").not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    make_certs(folder, 2, days=999_999_999)
    ends = {certificate(folder, name).not_valid_after_utc for name in ("ca", "client-1")}
    assert len(ends) == 1


# --- expiry ---


def test_expired_certificates_are_refused_and_made_anew(folder, in_days):
    make_certs(folder, 1, days=30)
    keys = {name: data for name, data in contents(folder).items() if name.endswith(".key")}
    in_days(31)
    with pytest.raises(CertificateError, match=r"client-0.pem expired on .*flowerpress certs .* 1"):
        read_certs(folder, "client-0")
    written = make_certs(folder, 1, days=30)
    assert [path.name for path in written] == ["server.pem", "client-0.pem"]
    assert read_certs(folder, "client-0").key == keys["client-0.key"]


def test_what_expires_soon_is_warned_of(folder, in_days, caplog):
    make_certs(folder, 1, days=30)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        read_certs(folder, "client-0")
        assert not caplog.messages
        in_days(20)
        read_certs(folder, "client-0")
    assert [message.partition(" expires on ")[0] for message in caplog.messages] == [
        str(folder / "client-0.pem")
    ]


def test_an_expired_authority_signs_nothing(folder, in_days):
    make_certs(folder, 1)
    in_days(4000)
    with pytest.raises(CertificateError, match="make all certificates anew, in an empty folder"):
        make_certs(folder, 2)


def test_a_clock_that_is_late_is_named(made, in_days):
    in_days(-10)
    with pytest.raises(CertificateError, match="this machine's clock says"):
        read_certs(made, "client-0")


# --- what is wrong ---


@pytest.mark.parametrize("lost", ["ca.pem", "client-1.pem", "client-1.key"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(folder, lost):
    make_certs(folder, 2)
    (folder / lost).unlink()
    command = f"flowerpress certs {folder} --clients 2 --host NAME"
    with pytest.raises(CertificateError) as caught:
        read_certs(folder, "client-1")
    assert str(caught.value).startswith(f"no file {folder / lost}: ")
    assert command in str(caught.value)


def test_files_that_do_not_go_together_are_named(folder, made):
    make_certs(folder, 2)
    kept = contents(folder)
    for name, data, message in [
        ("client-0.key", kept["client-1.key"], "client-0.key is not the key of .*client-0.pem"),
        ("client-0.pem", (made / "client-0.pem").read_bytes(), "was not signed by .*ca.pem"),
        ("client-0.pem", b"nothing", "is not a certificate in PEM"),
        ("client-0.key", b"nothing", "is not a private key in PEM"),
        ("ca.pem", (made / "ca.pem").read_bytes(), "client-0.pem was not signed by"),
    ]:
        (folder / name).write_bytes(data)
        with pytest.raises(CertificateError, match=message):
            read_certs(folder, "client-0")
        (folder / name).write_bytes(kept[name])


def test_without_the_authoritys_key_nothing_is_signed(folder, made):
    make_certs(folder, 1)
    (folder / "ca.key").unlink()
    assert make_certs(folder, 1) == []  # nothing to sign
    with pytest.raises(CertificateError, match=r"no file .*ca.key: only with it"):
        make_certs(folder, 2)
    (folder / "ca.key").write_bytes((made / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match=r"ca.key is not the key of"):
        make_certs(folder, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clients": 0}, "at least 1 client and 1 day, not 0 and 365"),
        ({"clients": 1, "days": 0}, "at least 1 client"),
        ({"clients": 1, "hosts": []}, "at least one host name"),
        ({"clients": 1, "hosts": ["host:8000"]}, r"'host:8000' is not a host name .*no port"),
        ({"clients": 1, "hosts": [""]}, "'' is not a host name"),
        ({"clients": 1, "hosts": ["b\u00fccher.example"]}, "is not a host name"),
    ],
)
def test_arguments_out_of_range_leave_no_file(folder, given, message):
    with pytest.raises(ValueError, match=message):
        make_certs(folder, **given)
    assert not folder.exists()


# --- with gRPC ---


def whoami(_request, context):
    names = context.auth_context().get("x509_common_name", [])
    return b",".join(names)


@contextmanager
def serving(ca, cert, key):
    """Serve, on a port of loopback, a method that answers with the caller's name."""
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(whoami)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    credentials = grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=ca, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def ask(port, ca, cert=None, key=None, *, options=()):
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        return channel.unary_unary("/test/Who")(b"", timeout=10)


def refused(*arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        ask(*arguments, **options)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_server_knows_its_clients_by_name_and_no_one_else(made, folder):
    make_certs(folder, 1)
    others = read_certs(folder, "client-0")
    server = read_certs(made, "server")
    with serving(*server) as port:
        for name in ("client-0", "client-1"):
            assert ask(port, *read_certs(made, name)) == name.encode()
        assert refused(port, server.ca)  # no certificate
        assert refused(port, server.ca, others.cert, others.key)  # another authority's
        assert refused(port, *server)  # a certificate, but not a client's
        assert refused(port, *others)  # a client that trusts another authority


def test_no_client_passes_for_the_server(made):
    name = [("grpc.ssl_target_name_override", "client-0")]
    with serving(*read_certs(made, "client-0")) as port:
        assert refused(port, *read_certs(made, "client-1"))
        assert refused(port, *read_certs(made, "client-1"), options=name)


def test_a_server_by_another_name_is_refused(folder):
    make_certs(folder, 1, hosts=["fl.example.org"])
    name = [("grpc.ssl_target_name_override", "fl.example.org")]
    with serving(*read_certs(folder, "server")) as port:
        assert refused(port, *read_certs(folder, "client-0"))
        assert ask(port, *read_certs(folder, "client-0"), options=name) == b"client-0"
