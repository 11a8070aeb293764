"""A message on the wire: what each kind of server gets, and what is said when it does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.receivers import HttpReceiver, SmtpReceiver

from posetune.api import BadInputError
from posetune.notifications.messages import Message
from posetune.notifications.senders import NotSentError, check_secrets, send
from posetune.spec.notify import Destination, parse_destinations

MESSAGE = Message(
    id="first-1a2b3c4d/17/new_best",
    event="new_best",
    at=1790000000.25,
    sweep="first",
    text="sweep first: new best <4.5> & more",
    data={"trial": 3, "value": 4.5},
)


def destination(**given: Any) -> Destination:
    return parse_destinations([given])[0]


def test_a_webhook_gets_json_that_is_signed(
    http: HttpReceiver, webhook: Destination, planted: str
) -> None:
    http.start()
    send(webhook, MESSAGE)

    (request,) = http.taken
    assert request.content == {
        "type": "new_best",
        "timestamp": "2026-09-21T14:13:20.250+00:00",
        "id": MESSAGE.id,
        "sweep": "first",
        "text": MESSAGE.text,
        "data": {"trial": 3, "value": 4.5},
    }
    assert request.headers["content-type"] == "application/json"
    signed = f"{MESSAGE.id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = hmac.digest(planted.encode(), signed, hashlib.sha256)
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_a_secret_of_standard_webhooks_is_base64(
    http: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = bytes(range(24))
    monkeypatch.setenv("HOOK_SECRET", f"whsec_{base64.b64encode(key).decode()}")
    http.start()
    send(destination(webhook=http.url, secret={"env": "HOOK_SECRET"}), MESSAGE)

    (request,) = http.taken
    signed = f"{MESSAGE.id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_slack_and_discord_get_their_own_forms_and_nobody_is_called(
    http: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNEL", f"{http.url}/services/T0/B0/x")
    http.start()
    send(destination(slack={"env": "CHANNEL"}), MESSAGE)
    send(destination(discord={"env": "CHANNEL"}), MESSAGE)

    slack, discord = http.taken
    assert slack.path == "/services/T0/B0/x"
    assert slack.content == {
        "text": f"sweep first: new best &lt;4.5&gt; &amp; more\n_{MESSAGE.id}_"
    }
    assert discord.content == {
        "content": f"{MESSAGE.text}\n-# {MESSAGE.id}",
        "allowed_mentions": {"parse": []},
    }


def test_a_mail_has_one_id_however_often_it_is_sent(smtp: SmtpReceiver, mail: Destination) -> None:
    smtp.start()
    send(mail, MESSAGE)
    send(mail, MESSAGE)

    first, second = smtp.taken
    assert first["Subject"] == "posetune: sweep first: new best"
    assert first["To"] == "a@example.org, b@example.org"
    assert MESSAGE.text in first.get_content()
    assert "trial: 3" in first.get_content()
    assert first["X-Posetune-Id"] == MESSAGE.id
    assert first["Message-ID"] == second["Message-ID"]
    assert smtp.recipients[0] == ["a@example.org", "b@example.org"]


def certificate(folder: Path) -> Path:
    """A key with a certificate for localhost that nobody has signed."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_mail_goes_encrypted_to_a_server_that_is_trusted_only(
    smtp: SmtpReceiver, mail: Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    smtp.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    smtp.tls.load_cert_chain(file)
    smtp.start()
    safe = mail.model_copy(update={"security": "starttls", "server": "localhost"})
    with pytest.raises(NotSentError, match="certificate of localhost is not trusted"):
        send(safe, MESSAGE)
    assert smtp.taken == []

    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    send(safe, MESSAGE)
    assert smtp.encrypted == 1


def test_a_server_without_encryption_gets_no_mail_that_asks_for_it(
    smtp: SmtpReceiver, mail: Destination
) -> None:
    smtp.start()
    with pytest.raises(NotSentError, match=r"127\.0\.0\.1 broke off \(SMTPNotSupportedError\)"):
        send(mail.model_copy(update={"security": "starttls"}), MESSAGE)
    assert smtp.taken == []


def test_a_stumbling_server_is_asked_again_at_once(
    http: HttpReceiver, webhook: Destination
) -> None:
    http.answers = [503, 429]
    http.start()
    send(webhook, MESSAGE)

    assert len(http.taken) == 1
    assert http.refused == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "answered with HTTP 404"), (301, "answered with HTTP 301")],
)
def test_what_a_server_does_not_take_is_not_sent(
    http: HttpReceiver, webhook: Destination, status: int, said: str
) -> None:
    http.answers = [status]
    http.start()
    with pytest.raises(NotSentError, match=said):
        send(webhook, MESSAGE)


def test_the_error_of_a_server_that_is_away_has_its_cause_and_no_secret(
    http: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    planted: str,
) -> None:
    monkeypatch.setenv("CHANNEL", f"{http.url}/services/{planted}")
    caplog.set_level(logging.DEBUG)
    slack = destination(slack={"env": "CHANNEL"})
    with pytest.raises(NotSentError) as caught:
        send(slack, MESSAGE)
    http.start()
    send(slack, MESSAGE)

    assert str(caught.value) == "no connection to 127.0.0.1 (Connection refused)"
    assert caught.value.__cause__ is None
    assert planted not in caplog.text


def test_other_requests_are_logged_as_ever(
    http: HttpReceiver, webhook: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    import requests

    http.start()
    caplog.set_level(logging.DEBUG)
    send(webhook, MESSAGE)
    requests.post(f"{http.url}/other", data=b"{}", timeout=60)

    assert [r.getMessage() for r in caplog.records if '"POST' in r.getMessage()] == [
        f'{http.url} "POST /other HTTP/1.1" 200 0'
    ]


def test_the_errors_of_a_mail_server_have_their_cause(
    smtp: SmtpReceiver, mail: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotSentError, match=r"no connection to 127\.0\.0\.1 \(Connection refused\)"):
        send(mail, MESSAGE)
    smtp.start()
    monkeypatch.setenv("WRONG", "wrong")
    wrong = {**mail.model_dump(), "password": {"env": "WRONG"}}
    with pytest.raises(NotSentError, match=r"127\.0\.0\.1 refused the login \(SMTP 535\)"):
        send(destination(**wrong), MESSAGE)
    smtp.is_full = True
    with pytest.raises(NotSentError, match=r"answered with SMTP 452"):
        send(mail, MESSAGE)
    assert smtp.taken == []


def test_a_server_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posetune.notifications.senders.ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        given = {"email": ["a@b"], "server": "127.0.0.1", "port": port, "sender": "p@b"}
        for one in (
            destination(webhook=f"http://127.0.0.1:{port}"),
            destination(**given, security="none"),
        ):
            with pytest.raises(NotSentError, match=r"127\.0\.0\.1 has not answered in time"):
                send(one, MESSAGE)


def test_a_secret_that_cannot_be_read_is_named_before_anything_is_sent(
    secret_file: Path, webhook: Destination
) -> None:
    check_secrets(webhook)
    secret_file.chmod(0o640)
    with pytest.raises(BadInputError, match=r"hook: holds a secret that others can read"):
        check_secrets(webhook)
    secret_file.chmod(0o600)
    secret_file.write_text("\n")
    with pytest.raises(BadInputError, match=r"hook: has no secret in its first line"):
        check_secrets(webhook)
    secret_file.unlink()
    with pytest.raises(BadInputError, match=r"cannot be read \(No such file or directory\)"):
        check_secrets(webhook)
    with pytest.raises(BadInputError, match=r"\$NOT_THERE: is not set"):
        check_secrets(destination(slack={"env": "NOT_THERE"}))
