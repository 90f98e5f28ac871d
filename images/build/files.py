"""Files that recipes write: there whole, or as they were."""

import tempfile
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, so that it is there whole or not at all. OSError."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as new:
        try:
            new.write(data)
            new.flush()
            Path(new.name).chmod(0o644)
            Path(new.name).rename(path)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
