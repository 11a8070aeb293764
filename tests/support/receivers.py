"""Real servers that receive messages: HTTP and SMTP on loopback, away until they are started."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
import ssl
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.ports import find_free_port

__all__ = ["HttpReceiver", "Request", "SmtpReceiver"]


@dataclass(frozen=True)
class Request:
    """What a server was sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HttpReceiver:
    """An HTTP server that keeps the requests that it takes, and can be away and back."""

    def __init__(self) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.taken: list[Request] = []
        """The requests that it said yes to, in order."""
        self.refused = 0
        """How many it said no to."""
        self.answers: list[int] = []
        """The statuses of its next answers; after them, and without any, it says yes."""
        self.lost = 0
        """How many of the next requests it takes without an answer."""
        self._server: ThreadingHTTPServer | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of the webhook messages that it took."""
        return [request.headers["webhook-id"] for request in self.taken]

    def start(self) -> None:
        """Be there."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.answers.pop(0) if receiver.answers else 200
                if status != 200:
                    receiver.refused += 1
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                receiver.taken.append(Request(self.path, headers, body))
                if receiver.lost:
                    receiver.lost -= 1
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class SmtpReceiver:
    """A small SMTP server (RFC 5321, AUTH PLAIN, STARTTLS) that can be away and back."""

    def __init__(self, *, user: str = "", password: str = "") -> None:
        self.port = find_free_port()
        self.taken: list[EmailMessage] = []
        """The mails that it took, in order."""
        self.recipients: list[list[str]] = []
        """Whom each of them was for."""
        self.is_full = False
        """Whether it says for now that it has no room."""
        self.tls: ssl.SSLContext | None = None
        """Its certificate, if it offers STARTTLS."""
        self.encrypted = 0
        """How many of the mails came encrypted."""
        self.login = (user, password)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Be there."""
        ready = threading.Event()
        loop = self._loop = asyncio.new_event_loop()

        def run() -> None:
            listening = loop.run_until_complete(
                asyncio.start_server(self._serve, "127.0.0.1", self.port)
            )
            loop.call_soon(ready.set)
            loop.run_forever()
            listening.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(60)

    def stop(self) -> None:
        """Be away."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)
            self._loop = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        try:
            await session.run()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client has gone
        finally:
            writer.close()


class _Session:
    """One connection of a client."""

    def __init__(
        self, server: SmtpReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._is_in = server.login == ("", "")
        self._is_encrypted = False
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Answer commands until the client leaves."""
        self._say("220 here")
        while line := (await self._reader.readline()).decode().strip():
            word = line.split(" ", 1)[0].split(":", 1)[0].upper()
            if word == "QUIT":
                self._say("221 bye")
                return
            if word == "STARTTLS":
                await self._start_tls()
            elif word == "DATA":
                await self._take_mail()
            else:
                self._answer(word, line)
            await self._writer.drain()

    def _answer(self, word: str, line: str) -> None:
        if word == "EHLO":
            self._say("250-here")
            if self._server.tls is not None and not self._is_encrypted:
                self._say("250-STARTTLS")
            self._say("250-AUTH PLAIN")
            self._say("250 SMTPUTF8")
        elif word == "AUTH":
            _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
            self._is_in = (user, password) == self._server.login
            self._say("235 in" if self._is_in else "535 no")
        elif word == "MAIL":
            self._recipients = []
            said = "250 ok" if self._is_in else "530 log in"
            self._say("452 no room" if self._server.is_full else said)
        elif word == "RCPT":
            self._recipients.append(line.partition("<")[2].rstrip(">"))
            self._say("250 ok")
        else:
            self._say("250 ok")

    async def _start_tls(self) -> None:
        self._say("220 go")
        await self._writer.drain()
        await self._writer.start_tls(self._server.tls)
        self._is_encrypted = True

    async def _take_mail(self) -> None:
        self._say("354 go")
        content = await self._reader.readuntil(b"\r\n.\r\n")
        mail = email.message_from_bytes(content[:-3], policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self._server.recipients.append(self._recipients)
        self._server.encrypted += self._is_encrypted
        self._server.taken.append(mail)
        self._say("250 taken")

    def _say(self, line: str) -> None:
        self._writer.write(f"{line}\r\n".encode())
