"""docs/api.md lists what the API has."""

from tests.web.api_table import PAGE, document, table, written


def test_the_page_lists_every_operation() -> None:
    page = PAGE.read_text()
    again = "run `python -m tests.web.api_table`: docs/api.md lists other operations than there are"
    assert page == written(page, table(document())), again
