"""The package as installed: where it comes from, what importing it loads, what it ships."""

import subprocess
import sys
from pathlib import Path

import wengert as wg

ROOT = Path(__file__).parents[1]


def test_the_tests_see_the_installed_wheel() -> None:
    package = Path(wg.__file__).parent
    assert "site-packages" in package.parts
    assert ROOT / "python" not in package.parents
    assert "site-packages" in Path(wg._core.__file__).parts


def test_importing_it_loads_no_numpy() -> None:
    program = "import sys, wengert; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_types_licences_and_attribution_are_shipped() -> None:
    package = Path(wg.__file__).parent
    for name in ["py.typed", "_core.pyi", "datasets/NOTICE"]:
        assert (package / name).is_file(), name
    (info,) = package.parent.glob(f"wengert-{wg.__version__}.dist-info")
    shipped = {path.name for path in (info / "licenses").rglob("*")}
    assert {"LICENSE-MIT", "LICENSE-APACHE", "NOTICE"} <= shipped
