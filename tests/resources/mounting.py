"""Resources and producers that are mounted for tests, and who asks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from zope.interface import implementer

from imagefarm.http.message import Request, Response
from imagefarm.http.uri import normalise
from imagefarm.resources.mounted import mounted
from tests.http.fakes import Client, ScriptedApplication


@implementer(IResource)
class Leaf:
    """A third party's leaf, in the manner of Klein: no `Resource`, `IResource` only."""

    isLeaf = True

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.requests: list[Any] = []
        #: What `notifyFinish` said, in order: None or the exception.
        self.finished: list[BaseException | None] = []

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        request.notifyFinish().addCallbacks(
            self.finished.append, lambda failure: self.finished.append(failure.value)
        )
        return self.answer(request)

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        raise AssertionError("a leaf has no children")

    def putChild(self, path: bytes, child: Any) -> None:
        raise AssertionError("a leaf has no children")


class Mount(ScriptedApplication):
    """An application that is nothing but a mounted resource."""

    content: Any = None
    #: The responses, for what the wire does not show.
    responses: list[Response]

    def respond(self, request: Request) -> Response | Deferred[Response]:
        self.requests.append(request)
        request.transfer = self.transfer
        request.uri, request.args = normalise(request.head.target)
        answer: Response | Deferred[Response] = self.content(request)
        if isinstance(answer, Deferred):
            return answer.addCallback(self.seen)
        return self.seen(answer)

    def seen(self, response: Response) -> Response:
        self.responses.append(response)
        return response


class Producer:
    """Records what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Pulled(Producer):
    """An `IPullProducer` with ``count`` chunks."""

    def __init__(self, request: Any, chunk: bytes, count: int) -> None:
        super().__init__()
        self.request, self.chunk, self.count = request, chunk, count

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.count -= 1
        self.request.write(self.chunk)
        if not self.count:
            self.request.unregisterProducer()
            self.request.finish()


class Case(SynchronousTestCase):
    def mount(self, answer: Any, prefix: bytes = b"/") -> Client:
        """A client of a resource, or of a leaf whose ``render`` is ``answer``."""
        self.leaf = Leaf(answer)
        resource: Any = answer if IResource.providedBy(answer) else self.leaf
        app = Mount()
        app.responses = []
        self.client = client = Client(app)
        self.app = app
        app.content = mounted(resource, prefix, reactor=client.clock)
        return client

    def turn(self) -> bytes:
        """One turn of the event loop; what the client got."""
        self.client.clock.advance(0)
        return self.client.read()

    def body(self, data: bytes) -> bytes:
        return data.partition(b"\r\n\r\n")[2]
