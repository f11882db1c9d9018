"""The frameworks' own tests: from the source distribution of the version that is installed, fetched once.

No copy is kept in git.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"


def own_suite(project: str) -> Path:
    """The folder `tests` of its source distribution."""
    version = importlib.metadata.version(project)
    cache = CACHE / f"{project}-tests"
    found = cache / f"{project}-{version}" / "tests"
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            subprocess.run(
                [
                    *(
                        sys.executable,
                        "-m",
                        "pip",
                        "download",
                        "--quiet",
                        "--no-deps",
                        "--no-binary",
                        project,
                    ),
                    *(f"{project}=={version}", "--dest", folder),
                ],
                check=True,
                timeout=100,
            )
            [archive] = Path(folder).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            [unpacked] = (entry for entry in Path(folder).iterdir() if entry.is_dir())
            # In one step: a run that is killed leaves no half of it, and of two at once the first wins.
            try:
                unpacked.rename(found.parent)
            except OSError:
                if not found.exists():
                    raise
    return found
