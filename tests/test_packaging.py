"""What an installed package has to bring along, tried in an empty virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = (
    "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "Makefile", "imagefarm", "twisted", "etc",
)  # fmt: skip
#: Reads the shipped configuration of every role, as the commands without --config do.
READ_ALL = """
import os
from imagefarm.app.configuration import SHIPPED, Options, read
for role in ("master", "slave", "resizer", "farm"):
    loaded = read(Options(role, os.path.join(SHIPPED, role + ".conf"), os.getcwd()))
    print(role, len(loaded.warnings))
"""


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


class PackagingTests(SynchronousTestCase):
    """One build and one environment serve all tests: they take some seconds."""

    built: Path | None = None

    def setUp(self) -> None:
        if not (REPOSITORY / "setup.cfg").exists():
            raise SkipTest("not a source tree")
        if PackagingTests.built is None:
            PackagingTests.built = self.build(Path(self.mktemp()).resolve())
        self.top = PackagingTests.built
        self.empty = self.top / "empty"

    def build(self, top: Path) -> Path:
        source = top / "source"
        source.mkdir(parents=True)
        for name in PARTS:
            if (REPOSITORY / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy(REPOSITORY / name, source / name)
        # Without --wheel or --sdist the wheel is made from the sdist: that must be whole, too.
        done = run(sys.executable, "-m", "build", "--no-isolation", str(source), cwd=top)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.install(top, next((source / "dist").glob("*.whl")))
        (top / "empty").mkdir()
        return top

    def install(self, top: Path, wheel: Path) -> None:
        """Install into a new environment; dependencies come from ours, so nothing is fetched."""
        venv.create(top / "venv", with_pip=False)
        python = top / "venv" / "bin" / "python"
        done = run(
            sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
            "--no-deps", "--no-index", str(wheel), cwd=top,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        (site,) = (top / "venv" / "lib").glob("python*/site-packages")
        # A plain path in a .pth doesn't make its own .pth files count: an editable install of
        # imagefarm in our environment stays out of sight.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def python(self, *arguments: str) -> str:
        done = run(str(self.top / "venv" / "bin" / "python"), *arguments, cwd=self.empty)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def shipped(self) -> set[str]:
        """Every file of etc/, as it is to be called in the package."""
        files = (path for path in (REPOSITORY / "etc").rglob("*") if path.is_file())
        return {f"imagefarm/etc/{path.relative_to(REPOSITORY / 'etc')}" for path in files}

    def test_wheel_holds_configuration_and_plugin(self) -> None:
        with zipfile.ZipFile(next((self.top / "source" / "dist").glob("*.whl"))) as wheel:
            names = set(wheel.namelist())
        self.assertIn("imagefarm/etc/html/50x.html", self.shipped())
        self.assertEqual(self.shipped() - names, set())
        self.assertIn("imagefarm/py.typed", names)
        self.assertIn("imagefarm/assets/dashboard/page.html", names)
        self.assertEqual(
            {name for name in names if name.startswith("twisted/")},
            {"twisted/plugins/imagefarm_plugin.py"},
        )
        self.assertEqual({name for name in names if name.startswith("tests/")}, set())

    def test_sdist_holds_what_a_build_needs(self) -> None:
        with tarfile.open(next((self.top / "source" / "dist").glob("*.tar.gz"))) as sdist:
            names = {name.partition("/")[2] for name in sdist.getnames()}
        wanted = {"LICENSE", "Makefile", "etc/master.conf", "twisted/plugins/imagefarm_plugin.py"}
        self.assertEqual((wanted | self.shipped()) - names, set())

    def test_the_installed_one_is_tried(self) -> None:
        where = self.python("-c", "import imagefarm; print(imagefarm.__file__)")
        self.assertTrue(where.startswith(str(self.top / "venv")), where)

    def test_twistd_knows_the_plugin_and_its_roles(self) -> None:
        twistd = "from twisted.scripts.twistd import run; run()"
        self.assertIn("imagefarm", self.python("-c", twistd, "--help"))
        text = self.python("-c", twistd, "imagefarm", "--help")
        for role in ("master", "slave", "resizer", "farm"):
            self.assertIn(role, text)

    def test_shipped_configuration_is_found_and_read_without_warnings(self) -> None:
        lines = self.python("-c", READ_ALL).split("\n")
        self.assertEqual(lines, ["master 0", "slave 0", "resizer 0", "farm 0", ""])
