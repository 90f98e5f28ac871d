"""The way to the dashboard."""

from pathlib import Path

from orchestrator.cli_web import page_to


def test_a_browser_is_led_to_a_link_by_a_page_that_only_its_owner_may_read(tmp_path: Path) -> None:
    page = tmp_path / "login.html"
    page.symlink_to(tmp_path / "elsewhere")
    for once in ("1", 'a"&b'):
        assert page_to(f"http://127.0.0.1:8480/login?once={once}", page) == page
        assert page.stat().st_mode & 0o777 == 0o600
    assert 'url=http://127.0.0.1:8480/login?once=a&quot;&amp;b"' in page.read_text()
    assert not (tmp_path / "elsewhere").exists()
