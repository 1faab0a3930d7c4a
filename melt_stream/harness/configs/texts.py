r"""How a prompt's texts are written where llama.cpp gets them: with ``-e`` it reads \n and the like; in MELT's YAML they stand in a shell's quotes too.

llama.cpp knows \n, \r, \t, \', \", \\ and \xHH and leaves others alone; a POSIX shell takes the backslash before $ ` " \ away within double quotes.
"""

from __future__ import annotations

import re

_KNOWN = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:([nrt'\"\\])|x([0-9A-Fa-f]{2}))")
_SHELL = re.compile(r"\\([$`\"\\])")
_BACKSLASHES = re.compile(r"\\(?=[$`\"\\]|$)")


def escaped(text: str) -> str:
    """Write a text for llama.cpp's ``-e``."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def unescaped(text: str) -> str:
    """Read a text as llama.cpp's ``-e`` does."""
    return _ESCAPE.sub(lambda m: _KNOWN[m[1]] if m[1] else chr(int(m[2], 16)), text)


def shell_quoted(text: str) -> str:
    """Write a text for MELT's YAML: escapes for llama.cpp, in double quotes for the shell that it passes through."""
    plain = _BACKSLASHES.sub(r"\\\\", escaped(text))
    return '"' + re.sub(r"([$`\"])", r"\\\1", plain) + '"'


def shell_unquoted(text: str) -> str:
    """Read a text of MELT's YAML; one without quotes of its own has its escapes read only."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = _SHELL.sub(r"\1", text[1:-1])
    return unescaped(text)
