"""PyTorch's recorded samples: whatever of them exists here gives PyTorch's results and gradients.

The samples are not part of the repository. Where their folder is absent these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("WENGERT_TORCH_REFERENCE", ROOT.parent / "shared" / "torch_reference"))
ADAPTER = Path(__file__).parent / "torch_reference" / "adapter.py"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "run.py").is_file(), reason=f"no recorded samples at {FOLDER}; WENGERT_TORCH_REFERENCE names another"
)

# Samples that must differ, by kind and name of the op, with the reason. Each must still fail, so that the list is true.
DIFFERENT: dict[str, dict[str, str]] = {
    "errors": {"arange": "a stop below the start is an empty range in the Array API, an error in PyTorch"},
}


@pytest.mark.parametrize("kind", ["ops", "modules", "optims", "errors"])
def test_samples(kind: str, tmp_path: Path) -> None:
    report_path = tmp_path / "report.json"
    command = [sys.executable, "-P", str(FOLDER / "run.py"), str(ADAPTER), "--root", str(FOLDER), "--kinds", kind]
    done = subprocess.run(
        [*command, "--summary", "--json", str(report_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(report_path.read_text())[kind]
    failures = {name: messages for name, messages in report["failures"].items() if messages}
    assert set(failures) == {name for name in DIFFERENT.get(kind, {}) if name in report["names"]}, done.stdout
    assert report["passed"] > 0
