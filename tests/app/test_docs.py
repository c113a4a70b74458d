"""The reference in docs/ is what the directive table says today."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import directive_table
from imagefarm.app.docs import reference
from imagefarm.config.table import BlockRow, Ignored

COMMITTED = Path(__file__).parents[2] / "docs" / "configuration.md"


class ReferenceTests(SynchronousTestCase):
    def test_committed_file_is_up_to_date(self) -> None:
        self.assertEqual(COMMITTED.read_text(encoding="utf-8"), reference(), 'run "make docs"')

    def test_every_directive_says_what_it_is(self) -> None:
        for rows in directive_table().groups.values():
            for row in rows:
                if isinstance(row, Ignored):
                    self.assertNotIn(row.why[-1:], ("", "."), row.name)
                    continue
                self.assertTrue(row.doc.strip().endswith("."), f"{row.name}: {row.doc}")
                if not isinstance(row, BlockRow) and row.arity[0] > 0:
                    self.assertTrue(row.syntax, row.name)
