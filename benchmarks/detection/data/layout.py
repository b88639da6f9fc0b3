"""What a data set's folder must hold, and what is said when it doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MINIATURE = "MINIATURE"  # a file of this name marks a folder as not the real data set


class DataError(ValueError):
    """Data are not as their publisher distributes them; nothing was downloaded or changed."""


def mark(root: Path) -> None:
    """Makes the folder of a miniature."""
    root.mkdir(parents=True)
    (root / MINIATURE).touch()


def is_miniature(root: Path) -> bool:
    return (root / MINIATURE).exists()


class Layout(NamedTuple):
    """A data set: who publishes it, and checks of its files.

    Each check raises :class:`DataError`, which names the file, the rule and the publisher's page.
    """

    name: str
    page: str

    def error(self, text: str) -> DataError:
        return DataError(f"{self.name}: {text}. Its publisher offers the data at {self.page}")

    def folder(self, path: Path) -> Path:
        """The folder, which must exist."""
        if not path.is_dir():
            raise self.error(f"there must be a folder {path}")
        return path

    def file(self, path: Path, *, empty: bool = False) -> Path:
        """The file, which must exist and, unless it may be, not be empty."""
        if not path.is_file():
            raise self.error(f"there must be a file {path}")
        if not empty and path.stat().st_size == 0:
            raise self.error(f"the file {path} must not be empty")
        return path

    def whole(self, root: Path, what: str, found: object, published: object) -> None:
        """What was found must be what was published, unless the root is that of a miniature."""
        if found != published and not is_miniature(root):
            raise self.error(f"{root} must have {published} {what}; got {found}")

    def files(self, folder: Path, pattern: str) -> list[Path]:
        """The files of a folder whose names have the pattern, by name; there must be one."""
        found = sorted(self.folder(folder).glob(pattern))
        if not found:
            raise self.error(f"there must be files {folder / pattern}")
        return [self.file(path) for path in found]

    def numbered(self, folder: Path, template: str, least: int) -> list[Path]:
        """The files from number 1 on without a gap, at least so many, such as ``{:02}.avi``."""
        suffix = template[template.index("}") + 1 :]
        count = max(len(self.files(folder, f"[0-9]*{suffix}")), least)
        return [self.file(folder / template.format(number + 1)) for number in range(count)]
