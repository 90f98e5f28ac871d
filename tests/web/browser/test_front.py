"""A Pareto front in a browser: its points are chosen by click, and what one proposes is applied."""

import re

from playwright.sync_api import Page, expect

from tests.web.browser.test_access import _axe


def test_a_point_is_chosen_and_just_that_is_applied(admin: Page) -> None:
    admin.goto("/placement/front")
    admin.get_by_test_id("find-front").click()
    rows = admin.locator("#front-table a[data-point]")
    expect(rows.first).to_be_visible()
    apply, head = admin.get_by_test_id("apply"), admin.locator("#chosen-plan h2")
    for number in range(rows.count()):
        rows.nth(number).click()
        expect(head).to_contain_text(f"Plan {number + 1}: ")
        if apply.count():
            break
    expect(apply).to_have_attribute("data-body", re.compile(rf'"plan": {number}\b.*"tag": "\w+"'))
    assert _axe(admin) == []
    moves = admin.locator("#chosen-plan").get_by_test_id("moves").inner_text()
    apply.click()
    admin.get_by_role("dialog").get_by_role("button", name="Apply this plan").click()
    admin.wait_for_url(re.compile(r"/placement\?of="))
    expect(admin.get_by_test_id("proposal")).to_contain_text("applied")
    expect(admin.get_by_test_id("moves")).to_have_text(re.compile(r"\S"))
    assert admin.get_by_test_id("moves").inner_text() == moves
