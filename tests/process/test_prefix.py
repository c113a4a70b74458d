import os

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.prefix import prepare


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.prefix, self.source = self.mktemp(), self.mktemp()
        os.makedirs(self.prefix)
        os.makedirs(os.path.join(self.source, "html"))
        with open(os.path.join(self.source, "html", "50x.html"), "w") as file:
            file.write("ours")
        self.warnings: list[str] = []

    def prepare(self) -> None:
        prepare(self.prefix, self.source, self.warnings.append)

    def page(self) -> str:
        with open(os.path.join(self.prefix, "html", "50x.html")) as file:
            return file.read()

    def test_a_fresh_prefix_gets_the_pages(self) -> None:
        self.prepare()
        self.assertEqual(self.page(), "ours")
        self.assertEqual(sorted(os.listdir(self.prefix)), ["cache", "html", "logs"])

    def test_what_is_there_is_left_alone(self) -> None:
        self.prepare()
        with open(os.path.join(self.prefix, "html", "50x.html"), "w") as file:
            file.write("theirs")
        self.prepare()
        self.assertEqual((self.page(), self.warnings), ("theirs", []))

    def test_failing_is_told_and_survived(self) -> None:
        os.rmdir(self.prefix)
        with open(self.prefix, "w"):
            pass
        self.prepare()
        self.assertEqual(len(self.warnings), 3)
        self.assertIn(f'mkdir() "{self.prefix}/logs" failed (20: Not a directory)', self.warnings)
        self.assertIn("cannot copy the pages to", self.warnings[2])
