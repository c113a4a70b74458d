"""Malformed and ambiguous requests on the wire: our daemon, and real nginx for comparison.

Where nginx answers otherwise, the table says how: a change of either is noticed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.http.vectors import ALL
from tests.support import farmsite, tools, vectors
from tests.support.processes import Daemon, free_ports, imagefarm
from tests.support.stages import StagedCase


class VectorTests(StagedCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vectors-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        self.ports = free_ports(2)
        self.config = vectors.write_configuration(self.directory, *self.ports)

    def compare(self, daemon: Daemon, expected: list[str]) -> None:
        """Every outcome is the expected one, and the daemon lives."""
        self.addCleanup(daemon.stop)
        daemon.started()
        cases = [(vector.data, wanted) for vector, wanted in zip(ALL, expected, strict=True)]
        found = [
            f"{vector.family}, {vector.name}: {outcome} and not {wanted}"
            for vector, wanted, outcome in zip(
                ALL, expected, vectors.observe_all(self.ports[0], cases), strict=True
            )
            if outcome != wanted
        ]
        self.assertEqual(found, [], "\n".join(found))
        self.assertEqual(vectors.observe(self.ports[0], b"", "open"), "open")
        self.assertIsNone(daemon.process.poll())

    def test_ours(self) -> None:
        daemon = imagefarm("slave", self.directory, "--config", str(self.config), ports=self.ports)
        self.compare(daemon, [vector.expected for vector in ALL])
        errors = (self.directory / "logs/error.log").read_text()
        self.assertNotIn("Traceback", errors + daemon.output.read_text())

    def test_nginx(self) -> None:
        daemon = farmsite.nginx(tools.nginx(), self.directory, self.config, self.ports)
        self.compare(daemon, [vector.nginx or vector.expected for vector in ALL])
