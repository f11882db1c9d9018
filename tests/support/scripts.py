"""Scripts that a test runs in an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str, cwd: Path = ROOT) -> str:
    """Run a script in a fresh interpreter; what it printed. Fails with what it said on stderr."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stdout
