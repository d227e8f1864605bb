"""Pages keep to the house's rule: short lines, short cells, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import FORMATS, RESULTS, ROOT, cells, links, pages, shown, text_lines
from tests.docs.words import avoided, prose, sources

LINE_MAX, CELL_MAX = 100, 80
LINES_MAX = {"README.md": 100, "daemon/ARCHITECTURE.md": 150, "daemon/README.md": 60}
DECISION_LINES_MAX = 20
PAGES = pages()
SOURCES = sources()
_CODE = re.compile(r"`[^`]*`")
PROSE = [page for page in PAGES if not page.startswith((FORMATS, RESULTS))]


@pytest.mark.parametrize("page", PROSE)
def test_lines_and_cells_are_short(page: str) -> None:
    """A line has at most 100 characters, a table's cell 80; code and targets of links don't count."""
    for number, line in text_lines((ROOT / page).read_text()):
        where = f"{page}:{number}"
        if line.startswith("|"):
            long = [cell for cell in cells(line) if len(shown(cell)) > CELL_MAX]
            assert not long, f"{where}: a cell of more than {CELL_MAX} characters: {long[0]}"
        elif " " in line.strip():  # one word can't be wrapped
            assert len(shown(line)) <= LINE_MAX, f"{where}: {len(line)} characters"


@pytest.mark.parametrize("page", LINES_MAX)
def test_a_page_is_short(page: str) -> None:
    """The pages that people read first fit into a few minutes."""
    assert len((ROOT / page).read_text().splitlines()) <= LINES_MAX[page]


def test_a_decision_is_one_short_record() -> None:
    """Numbered without a hole; each says context, measurement and decision in at most 20 lines."""
    records = sorted((ROOT / "daemon/docs/decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        lines = path.read_text().splitlines()
        assert len(lines) <= DECISION_LINES_MAX, path.name
        parts = [line.split("**")[1] for line in lines if line.startswith("**")]
        assert parts == ["Context.", "Measurement.", "Decision."], path.name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """A relative link names a file or folder of the repository, and a heading where it has one."""
    folder = (ROOT / page).parent
    for link in links((ROOT / page).read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, heading = link.partition("#")
        target = folder / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if heading:
            assert heading in _anchors(target), f"{page}: {link}"


@pytest.mark.parametrize("page", PROSE)
def test_a_page_avoids_private_words(page: str) -> None:
    """Plain English: the page has the field's word."""
    found = [
        (n, word)
        for n, line in text_lines((ROOT / page).read_text())
        for word in avoided(_CODE.sub("", line))
    ]
    assert not found, f"{page}: line and word: {found}"


@pytest.mark.parametrize("path", sorted(SOURCES), ids=str)
def test_docstrings_comments_and_names_of_tests_avoid_private_words(path: Path) -> None:
    """So does the prose of the code, and the name of each function."""
    found = [(number, word) for number, text in prose((ROOT / path).read_text()) for word in avoided(text)]
    assert not found, f"{path}: line and word: {found}"


def test_the_check_sees_docstrings_comments_and_names() -> None:
    """Text in code is none of them, and a word is found across a line's end."""
    code = (
        '"""Made anew."""\n\nx = "told"  # of\n# before\n\ndef test_it_is_told():\n    """So\n    many."""\n'
    )
    assert sorted(word.lower() for _, text in prose(code) for word in avoided(text)) == [
        "anew", "of before", "so many", "told",
    ]  # fmt: skip


def _anchors(page: Path) -> set[str]:
    """Names of the headings, as the repository's host makes them."""
    headings = (line.lstrip("#").strip() for _, line in text_lines(page.read_text()) if line.startswith("#"))
    kept = ("".join(c for c in heading.lower() if c.isalnum() or c in " -_") for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}
