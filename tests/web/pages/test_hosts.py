"""The pages of hosts over a small world."""

from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, door, look
from tests.world import World


def test_hosts_say_what_they_have_and_what_is_used(dashboard: FlaskClient, world: World) -> None:
    (endpoint,) = world.ask("web")
    page = look(dashboard, "/hosts")
    assert "100 MiB of 1 GiB" in page.text
    assert page.all("button", id="drain-a", data_path="/hosts/a/drain")
    one = look(dashboard, f"/hosts/{endpoint.host}")
    assert one.all("tr", data_key=endpoint.instance)
    assert one.all("tr", data_kind="cold")


def test_a_host_that_is_drained_says_how_far_it_is(
    dashboard: FlaskClient, upstream: Through
) -> None:
    hosts = upstream.get("/hosts")
    hosts["hosts"][0]["drain"] = {
        "state": "draining",
        "since": 1790000000.0,
        "force": False,
        "moved": 1,
        "total": 3,
        "stuck": [{"instance": "i1", "why": HOSTILE, "ending": False}],
        "migrating": [{"instance": "i2", "to": "b", "percent": 40, "left_bytes": 9}],
        "booted": [{"instance": "i3", "why": HOSTILE}],
    }
    upstream.answers |= {"/hosts": hosts, "/hosts/a": hosts["hosts"][0]}
    assert "1 of 3 moved, 1 stuck" in look(dashboard, "/hosts").text
    page = look(dashboard, "/hosts/a")
    assert page.all("progress", max="3", value="1")
    assert page.text.count(HOSTILE) == 2
    assert "40 % of its memory" in page.text
    assert page.all("button", id="undrain-a", data_method="DELETE")
    assert page.all("button", id="force")


def test_a_host_that_is_lost_says_why(dashboard: FlaskClient, upstream: Through) -> None:
    hosts = upstream.get("/hosts")
    hosts["hosts"][0] |= {"reachable": False, "lost": HOSTILE, "free": None}
    upstream.answers |= {"/hosts": hosts, "/hosts/a": hosts["hosts"][0]}
    assert HOSTILE in look(dashboard, "/hosts").text
    page = look(dashboard, "/hosts/a")
    assert HOSTILE in page.text
    assert "cannot be reached" in page.text


def test_a_host_says_what_it_draws(dashboard: FlaskClient, upstream: Through) -> None:
    hosts = upstream.get("/hosts")
    assert "the lab file does not say" in look(dashboard, "/hosts/a").text
    hosts["hosts"][0]["power"] = {"now_w": 41.5, "idle_w": 30.0, "busy_w": 90.0}
    hosts["hosts"][1]["power"] = {"now_w": None, "idle_w": 30.0, "busy_w": 90.0}
    upstream.answers |= {"/hosts": hosts, "/hosts/a": hosts["hosts"][0]}
    assert "41.5 W, an estimate" in look(dashboard, "/hosts/a").text
    assert "about 42 W now" in look(dashboard, "/hosts").text


def test_no_hosts_says_what_to_do(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/hosts"] = {"hosts": []}
    assert "No hosts yet" in look(dashboard, "/hosts").text


def test_a_viewer_cannot_drain(upstream: Through) -> None:
    (drain,) = look(door(upstream, role="viewer"), "/hosts/a").all("button", id="drain-a")
    assert "disabled" in drain


def test_an_unknown_host_is_a_page_that_says_so(dashboard: FlaskClient) -> None:
    assert "nowhere: no such host" in look(dashboard, "/hosts/nowhere", 404).text
