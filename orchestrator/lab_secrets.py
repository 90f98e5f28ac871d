"""The text of a lab file for people who may look at all of it but its secrets.

Keys and passwords are never in a lab file: it names the files that have them. What may be a secret
there is where a webhook posts to, since for many receivers whoever knows the address may post.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from orchestrator.lab_yaml import composed

LEFT_OUT = "..."


def without_secrets(text: str, path: Path) -> str:
    """Return the text with no more of webhooks' addresses than their hosts, else as written.

    Raises LabError if it is no YAML. What comments say is not looked at.
    """
    addresses = [*_addresses(composed(text, path))]
    for node in sorted(addresses, key=lambda each: each.start_mark.index, reverse=True):
        parts = urlsplit(node.value)
        if parts.path.strip("/") or parts.query:
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{LEFT_OUT}"
            text = text[: node.start_mark.index] + shown + text[node.end_mark.index :]
    return text


def _addresses(lab: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Yield the values at ``webhooks.NAME.url``."""
    for hooks in _at(lab, "webhooks"):
        for hook in _at(hooks):
            for address in _at(hook, "url"):
                if isinstance(address, yaml.ScalarNode):
                    yield address


def _at(node: yaml.Node | None, wanted: str = "") -> Iterator[yaml.Node]:
    """Yield what a mapping has at a key, or at all of its keys."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not wanted or key.value == wanted:
                yield value
