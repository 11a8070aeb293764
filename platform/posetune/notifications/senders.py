"""Sends one message to one destination: over HTTP or by e-mail.

A secret is read when a message is sent, and is never part of an error or of a log.

HTTP is spoken by requests, whose retries (urllib3's) bridge a stumbling server; the outbox bridges
one that is away for longer. A webhook is signed as Standard Webhooks (standardwebhooks.com) asks,
so libraries of many languages can check it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from posetune.api import BadInputError
from posetune.notifications.messages import Message
from posetune.spec.notify import Destination, Discord, Email, Secret, Slack, Webhook
from posetune.storage.credentials import read_secret_file

__all__ = ["NotSentError", "check_secrets", "send", "sign"]

CONNECT_S, ANSWER_S = 5.0, 10.0
"""Seconds for which a server may take to accept a connection, and to answer."""
RETRIES = 2
"""Number of times that a request is repeated at once."""
DISCORD_CHARACTERS = 2000
"""Length of the longest message that Discord takes."""
_SIGNED_KEY = "whsec_"
"""What a secret begins with that is written in base64, as Standard Webhooks has it."""


class NotSentError(Exception):
    """A message did not reach its destination; the text says why, and holds no secret."""


def send(destination: Destination, message: Message) -> None:
    """Send a message; it has arrived when this returns.

    Raises:
        NotSentError: it did not arrive, or not for certain; send it again later.
    """
    try:
        with _no_logs():
            if isinstance(destination, Email):
                _send_email(destination, message)
            else:
                _post(destination, message)
    except BadInputError as error:  # the secret cannot be read
        raise NotSentError(str(error)) from None


def check_secrets(destination: Destination) -> None:
    """Make sure that the secrets of a destination can be read.

    Raises:
        BadInputError: says which one cannot.
    """
    for value in (getattr(destination, name) for name in type(destination).model_fields):
        if isinstance(value, Secret):
            _reveal(value)


def sign(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, as the header `webhook-signature` has it.

    Args:
        secret: the secret; one that begins with `whsec_` is base64 after that.
        identity: id of the message.
        timestamp: when it is sent, in whole seconds since the epoch.
        body: the body of the request.
    """
    if secret.startswith(_SIGNED_KEY):
        try:
            key = base64.b64decode(secret.removeprefix(_SIGNED_KEY), validate=True)
        except ValueError:
            raise NotSentError(f"the secret is not base64 behind {_SIGNED_KEY}") from None
    else:
        key = secret.encode()
    signed = f"{identity}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _reveal(secret: Secret) -> str:
    if secret.file is not None:
        return read_secret_file(secret.file)
    assert secret.env is not None  # a secret has one of the two
    value = os.environ.get(secret.env, "").strip()
    if not value:
        raise BadInputError(
            f"${secret.env}: is not set, and a destination of notify has its secret there; set it, "
            "or give {file: PATH}"
        )
    return value


# -- over HTTP -------------------------------------------------------------------------------------


def _post(destination: Webhook | Slack | Discord, message: Message) -> None:
    given: str | Secret = getattr(destination, destination.kind)
    address = _reveal(given) if isinstance(given, Secret) else given
    body = json.dumps(_body(destination, message)).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "posetune"}
    if isinstance(destination, Webhook):
        headers |= _webhook_headers(destination, message, body)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotSentError("what is given as its address is none (https://...)")
    try:
        with _session() as session:
            answer = session.post(
                address,
                data=body,
                headers=headers,
                timeout=(CONNECT_S, ANSWER_S),
                allow_redirects=False,  # a redirected POST would become a GET
            )
    except (requests.RequestException, ValueError) as error:
        raise NotSentError(_http_cause(error, parts.hostname)) from None
    if not 200 <= answer.status_code < 300:
        raise NotSentError(f"{parts.hostname} answered with HTTP {answer.status_code}")


def _body(destination: Webhook | Slack | Discord, message: Message) -> Mapping[str, object]:
    if isinstance(destination, Webhook):
        return {
            "type": message.event,
            "timestamp": message.time,
            "id": message.id,
            "sweep": message.sweep,
            "text": message.text,
            "data": message.data,
        }
    if isinstance(destination, Slack):
        text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": f"{text}\n_{message.id}_"}
    text = f"{message.text[: DISCORD_CHARACTERS - len(message.id) - 4]}\n-# {message.id}"
    return {"content": text, "allowed_mentions": {"parse": []}}


def _webhook_headers(webhook: Webhook, message: Message, body: bytes) -> dict[str, str]:
    now = int(time.time())
    headers = {"webhook-id": message.id, "webhook-timestamp": str(now)}
    if webhook.secret is not None:
        headers["webhook-signature"] = sign(_reveal(webhook.secret), message.id, now, body)
    return headers


def _session() -> requests.Session:
    retries = Retry(
        RETRIES,
        read=False,  # who is silent once is silent for as long the next time
        backoff_factor=0.3,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,  # a message may be repeated: it has an id
        raise_on_status=False,
        respect_retry_after_header=False,  # the outbox waits, not this call
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _http_cause(error: Exception, host: str) -> str:
    """Return why a request failed; the error's own text may hold the address with its secret."""
    if isinstance(error, requests.exceptions.SSLError):
        return f"the certificate of {host} is not trusted"
    if isinstance(error, requests.Timeout):
        return f"{host} has not answered in time"
    found = re.search(r"\[Errno -?\d+\] ([A-Za-z ]+)", str(error))
    if found is None:
        return f"{host} broke off before it answered"
    return f"no connection to {host} ({found[1].strip()})"


_sending = threading.local()


def _is_of_others(record: logging.LogRecord) -> bool:
    return not getattr(_sending, "now", False)


@contextmanager
def _no_logs() -> Iterator[None]:
    """Keep urllib3 from logging addresses of this thread in a block: they may hold a secret."""
    logger = logging.getLogger("urllib3.connectionpool")
    logger.addFilter(_is_of_others)  # a filter that is there already is not added again
    retries = logging.getLogger("urllib3.util.retry")
    retries.addFilter(_is_of_others)
    _sending.now = True
    try:
        yield
    finally:
        _sending.now = False


# -- by e-mail -------------------------------------------------------------------------------------


def _send_email(destination: Email, message: Message) -> None:
    mail = _mail(destination, message)
    server = destination.server
    password = None if destination.password is None else _reveal(destination.password)
    try:
        with _connect(destination) as client:
            if destination.user is not None and password is not None:
                client.login(destination.user, password)
            client.send_message(mail)
    except smtplib.SMTPAuthenticationError as error:
        raise NotSentError(f"{server} refused the login (SMTP {error.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused:
        raise NotSentError(f"{server} refused every recipient") from None
    except smtplib.SMTPResponseException as error:
        raise NotSentError(f"{server} answered with SMTP {error.smtp_code}") from None
    except smtplib.SMTPException as error:
        if "timed out" in str(error):
            raise NotSentError(f"{server} has not answered in time") from None
        raise NotSentError(f"{server} broke off ({type(error).__name__})") from None
    except ssl.SSLError:
        raise NotSentError(f"the certificate of {server} is not trusted") from None
    except TimeoutError:
        raise NotSentError(f"{server} has not answered in time") from None
    except OSError as error:
        raise NotSentError(f"no connection to {server} ({error.strerror or 'no answer'})") from None


def _connect(destination: Email) -> smtplib.SMTP:
    host, port = destination.server, destination.port
    if destination.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=ANSWER_S, context=context)
    client = smtplib.SMTP(host, port, timeout=ANSWER_S)
    if destination.security == "starttls":
        try:
            client.starttls(context=ssl.create_default_context())
        except BaseException:
            client.close()
            raise
    return client


def _mail(destination: Email, message: Message) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = f"posetune: {message.title}"
    mail["From"], mail["To"] = destination.sender, ", ".join(destination.email)
    mail["Date"] = format_datetime(localtime())
    # The same for a repeated message, so that a mail program shows it once.
    digest = hashlib.sha256(message.id.encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{digest}@{destination.sender.rpartition('@')[2].strip('> ')}>"
    mail["X-Posetune-Id"] = message.id
    facts = "".join(f"\n{key}: {value}" for key, value in message.data.items())
    mail.set_content(f"{message.text}\n{facts}\n\n{message.time}\n{message.id}\n")
    return mail
