"""A browser for the tests of the page."""

from collections.abc import Iterator

import pytest

from tests.browser import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def quiet(browser: Browser) -> Iterator[None]:
    """After each test: no error on the page, and nothing asked of the network."""
    browser.problems.clear()
    yield
    assert browser.problems == []
