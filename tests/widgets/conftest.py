"""One browser for all pages of the widgets' tests."""

from __future__ import annotations

import pytest

from tests.widgets.page import Page, start_browser


@pytest.fixture(scope="session")
def driver():
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def show(driver, tmp_path):
    """`show(widget, theme="light", width=1000)`: the widget in a page."""
    return lambda widget, **options: Page(driver, widget, tmp_path / "widget.html", **options)
