"""The page on limits is what the code says."""

from tests.docs.limits import PAGE, with_tables


def test_the_tables_of_limits_are_those_of_the_code() -> None:
    """`make docs` writes them."""
    assert PAGE.read_text() == with_tables(PAGE.read_text()), "out of date: make docs"
