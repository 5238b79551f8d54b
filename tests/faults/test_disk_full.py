"""A local destination that runs out of space stops the run at once; the same command continues once there is space."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from flows.restore_dataset import restore_without_prefect
from tasks.verify_run import verify_run
from tests import support

LIMITED = """
import resource, sys
from pathlib import Path
from flows.restore_dataset import restore_without_prefect
from tests import support
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
restore_without_prefect(support.make_run(Path(sys.argv[1])))
"""


def test_no_room_for_the_output(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8))
    began = time.monotonic()
    command = [sys.executable, "-c", LIMITED, str(tmp_path), "12000"]
    result = subprocess.run(command, cwd=support.ROOT, check=False, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1 and "storage refuses: OSError: [Errno 27] File too large" in result.stderr
    assert time.monotonic() - began < 60
    assert not [path for path in (tmp_path / "dst").rglob("*") if path.name.endswith(".tmp")]
    assert restore_without_prefect(support.make_run(tmp_path))["totals"]["restored"] == 8
    assert verify_run(str(tmp_path / "dst"))["ok"]
    restore_without_prefect(support.make_run(tmp_path, destination=str(tmp_path / "undisturbed")))
    assert support.restored_images(tmp_path / "dst") == support.restored_images(tmp_path / "undisturbed")
