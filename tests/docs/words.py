"""Words that the project's prose avoids; daemon/docs/glossary.md has those that it uses."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import ROOT

_TOPS = ("daemon", "client/python", "tests")
_OWN = Path("tests/docs")  # names the words
_AVOIDED = (
    r"anew",  # again
    r"told",  # got, reported, distinguished
    r"whoever",  # the noun
    r"so (?:many|much)",  # the number, or the parameter's name
    r"(?:is|are) to be",  # must be
    r"of before",  # earlier
    r"behind (?:it|them|that|this|those|these|what|which|each|every|so|an?|the|our)",  # after
    r"followers?",  # worker (a process), subscriber (a client)
    r"doors?",  # endpoint
    r"stretch(?:es)?",  # range, read window
)
_WORDS = re.compile(rf"\b(?:{'|'.join(_AVOIDED)})\b", re.IGNORECASE)
# "Who waits gets BUSY" is no question: the noun is missing.
_NO_NOUN = re.compile(r"(?:^|[.;:] )Who (?!is\b|are\b|may\b|can\b)")


def sources() -> list[Path]:
    """The Python files whose prose is checked, relative to the top."""
    found = (path.relative_to(ROOT) for top in _TOPS for path in (ROOT / top).rglob("*.py"))
    return [path for path in found if _OWN not in path.parents]


def avoided(text: str) -> list[str]:
    """The words of a text that the prose avoids."""
    flat = " ".join(text.split())
    return _WORDS.findall(flat) + _NO_NOUN.findall(flat)


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring and comment of a module, and the words of each function's name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.lineno, node.name.replace("_", " ")
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
    yield from _comments(source)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Comments, those of consecutive lines together."""
    first, text = 0, ""
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if line != last + 1:
            yield first, text
            first, text = line, ""
        text += f" {token.string.lstrip('#')}"
        last = line
    yield first, text
