"""Answers are counted by rule, so that nobody can make up labels."""

from flask import Flask

from web.answer_counts import AnswerCounts


def test_answers_are_counted_by_rule_method_and_class() -> None:
    app, counts = Flask("test"), AnswerCounts()
    app.get("/things/<name>")(lambda name: name)
    http = counts.watched(app).test_client()
    for path in ("/things/a", "/things/b", "/nothing/x", "/nothing/y"):
        http.get(path)
    http.post("/things/a")
    http.open("/things/a", method="ODD")
    found = {tuple(dict(labels).values()): count for labels, count in counts.counts().items()}
    assert found == {
        ("/things/<name>", "GET", "2xx"): 2,
        ("none", "GET", "4xx"): 2,
        ("none", "POST", "4xx"): 1,
        ("none", "other", "4xx"): 1,
    }
