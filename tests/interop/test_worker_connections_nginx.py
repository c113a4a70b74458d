"""``worker_connections``: the judge. Real nginx goes through what we go through."""

from __future__ import annotations

from tests.functional.test_worker_connections import PLACES, ConnectionsCase
from tests.support import farmsite, tools
from tests.support.processes import Daemon


class Nginx(ConnectionsCase):
    #: For nginx a listening socket is a connection, and the worker's channel to its master.
    limit = PLACES + 2

    def serve(self) -> Daemon:
        config = self.prefix.conf("status.conf")
        self.prefix.logs.mkdir()
        daemon = farmsite.nginx(tools.nginx(), self.prefix.directory, config, [self.port])
        self.addCleanup(daemon.stop)
        return daemon.started()

    def test_places(self) -> None:
        self.scenario()
