"""The table of malformed requests against a whole connection, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import BodyError
from imagefarm.http.message import Request, Response
from tests.support.pipeline import single
from tests.support.rawhttp import Reader
from tests.support.vectors import SENTINEL

from .fakes import Client, Collector, ScriptedApplication, text
from .vector import Vector
from .vectors import VECTORS

#: Longer ones take too long byte by byte.
SHORT = 3000


class Recorded:
    """What a server sent, as a socket to read it from."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def recv(self, count: int) -> bytes:
        data, self.left = self.left[:count], self.left[count:]
        return data


class BodyReader(ScriptedApplication):
    """Answers when the whole body is there, with the error's status when it breaks off."""

    def respond(self, request: Request) -> Response | Deferred[Response]:
        request.transfer = self.transfer
        answer: Deferred[Response] = Deferred()

        class Sink(Collector):
            def fail(self, error: Exception) -> None:
                assert isinstance(error, BodyError)
                answer.callback(text(b"refused", error.status))

        target = request.head.target
        request.body.start(Sink(lambda body: answer.callback(text(target))))
        return answer


def outcome(pieces: Iterable[bytes]) -> str:
    """In the words of the vectors; interim answers are left out."""
    client = Client(BodyReader())
    sent = b""
    for piece in [*pieces, SENTINEL]:
        sent += client.send(piece)
    reader = Reader(Recorded(sent))
    answers = []
    while (answer := reader.answer()) is not None:
        answers.append(answer)
    kept = bool(answers) and answers[-1].body == b"/sentinel"
    statuses = [str(answer.status) for answer in answers if answer.status != 100]
    return " ".join([*statuses[:-1], "open"] if kept else [*statuses, "closed"])


class Vectors(SynchronousTestCase):
    def check(self, cut: Callable[[bytes], list[bytes]], vectors: Iterable[Vector]) -> None:
        found = [
            f"{vector.family}, {vector.name}: {got} and not {vector.expected}"
            for vector in vectors
            if (got := outcome(cut(vector.data))) != vector.expected
        ]
        self.assertEqual(found, [], "\n".join(found))

    def test_whole(self) -> None:
        self.check(lambda data: [data], VECTORS)

    def test_byte_by_byte(self) -> None:
        self.check(single, [vector for vector in VECTORS if len(vector.data) < SHORT])

    def test_in_pieces(self) -> None:
        for size in (5, 64, 1000):
            self.check(
                lambda data, n=size: [data[i : i + n] for i in range(0, len(data), n)],
                VECTORS,
            )
