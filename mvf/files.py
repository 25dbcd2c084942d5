"""Where files lie, and files that are never half-written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """`$MVF_CACHE`, else `~/.cache/mvf`: weights, banks, frame counts."""
    return Path(os.environ.get("MVF_CACHE") or Path.home() / ".cache" / "mvf")


def data_folder(root: str | Path | None = None) -> Path:
    """`root`, else `$MVF_DATA`, else `~/mvf_data`."""
    return Path(root or os.environ.get("MVF_DATA") or Path.home() / "mvf_data").expanduser()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` only when the block succeeds.

    Raises:
        PermissionError: naming the folder, when it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except PermissionError as error:
        raise PermissionError(
            f"cannot write {path}: give write permission to {path.parent} or choose another folder"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"cannot write {path}: {error.filename} is a file, not a folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
