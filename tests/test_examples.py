"""The programs that users read first: each example and each Python block of README runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def run(*arguments: str) -> str:
    """Run Python without the working directory on its path, warnings as errors, and return what it prints."""
    command = [sys.executable, "-P", "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 80
    assert run(str(example))


@pytest.mark.parametrize("block", BLOCKS)
def test_readme(block: str) -> None:
    assert run("-c", block)


def test_there_is_something_to_run() -> None:
    assert len(EXAMPLES) >= 5
    assert BLOCKS
