"""The DNS front door: a question becomes a wake, and its outcome an answer."""
