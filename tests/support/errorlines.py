"""An error log that remembers."""

from typing import Any

from attrs import evolve
from twisted.python.failure import Failure

from imagefarm.http.requestlog import Context


class ErrorLines:
    """`http.requestlog.RequestLogs`. Request ids are kept apart: they are random."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.names: list[str] = []

    def wants(self, level: str, client: str) -> bool:
        return level != "debug"

    def write(self, level: str, message: str, context: Context) -> None:
        self.names.append(context.request_id)
        text = f"*{context.connection} {message}{evolve(context, request_id='')}"
        self.lines.append((level, text))

    def fail(self, message: str, failure: Failure, context: Context) -> None:
        self.write("crit", f"{message}: {failure.getErrorMessage()}", context)

    def outline(self, level: str, message: str, context: Context) -> Any:
        return level, message, context

    def again(self, outline: Any, connection: int, name: bytes) -> None:
        level, message, context = outline
        context = evolve(context, connection=connection, request_id=name.decode())
        self.write(level, message, context)
