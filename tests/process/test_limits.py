import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.limits import too_few_files

CODE = """
import resource, sys
from imagefarm.process.limits import limit_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
if resource.getrlimit(resource.RLIMIT_NOFILE)[1] == 200:
    limited = limit_open_files(int(sys.argv[1]))
    print(limited, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


class LimitTests(SynchronousTestCase):
    def limit(self, number: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(number)], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def test_within_the_hard_limit(self) -> None:
        self.assertEqual(self.limit(150), "None 150")

    def test_beyond_what_the_kernel_allows_the_hard_limit_is_taken(self) -> None:
        # Beyond fs.nr_open not even root may go.
        message = self.limit(2**40)
        self.assertTrue(message.startswith(f"setrlimit(RLIMIT_NOFILE, {2**40}) failed ("))
        self.assertTrue(message.endswith(", limit is 200 200"))

    def test_too_few_files(self) -> None:
        self.assertEqual(
            too_few_files(200, 199), "200 worker_connections exceed open file resource limit: 199"
        )
        self.assertIsNone(too_few_files(200, 200))
        self.assertIn("exceed open file resource limit: ", too_few_files(2**60, None) or "")
        self.assertIsNone(too_few_files(1, None))
