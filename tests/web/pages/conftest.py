"""The dashboard over the small world of `tests.web`."""

import pytest
from flask.testing import FlaskClient

from tests.web.pages.reading import Through, door


@pytest.fixture
def upstream(http: FlaskClient) -> Through:
    """Return what pages are made of: the world's API, and answers of one's own."""
    return Through(http)


@pytest.fixture
def dashboard(upstream: Through) -> FlaskClient:
    """Return a browser of an admin."""
    return door(upstream)
