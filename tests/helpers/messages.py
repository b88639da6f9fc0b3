"""What the messages of this package look like."""

from __future__ import annotations

import re


def said(text: str) -> str:
    """A pattern for a message of ours; a source path before it would be somebody else's."""
    return "^sspcab: " + re.escape(text)
