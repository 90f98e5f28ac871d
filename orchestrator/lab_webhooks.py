"""What may be written in a lab file below ``webhooks``; for `orchestrator.lab_schema`."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from orchestrator.lab_entry import Entry
from orchestrator.lab_values import Flag, ImageFile, Line, Written, one_of
from orchestrator.webhook import Secret, Topic, Webhook

LONGEST_URL = 2000


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or len(text) > LONGEST_URL or any(each <= " " or each > "~" for each in text):
        raise ValueError("it must be a URL such as https://chat.example.org/hooks/edgewake")
    if parts.username is not None or parts.fragment:
        raise ValueError("neither a user nor a '#' may be in it; a `secret` signs what is sent")
    return text


Url = Annotated[str, Written(_url, {"type": "string", "format": "uri"})]
TopicName = Annotated[str, one_of(tuple(Topic), "topic")]


class SecretEntry(Entry):
    """Where the secret is that signs what is sent; one of both."""

    file: ImageFile | None = Field(
        default=None, description="File with the secret, that only its owner may read."
    )
    env: Line | None = Field(default=None, description="Variable of the environment that has it.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("it needs `file` or `env`, and not both")
        return self

    def noun(self, folder: Path) -> Secret:
        """Return where it is; whether it can be read is seen when something is sent."""
        return Secret(folder.absolute() / self.file if self.file else None, self.env or "")


class WebhookEntry(Entry):
    """A receiver of events."""

    url: Url = Field(description="Where events are posted to.")
    on: list[TopicName] = Field(
        default=[str(Topic.FAILURE)], min_length=1, description="Which events it is told of."
    )
    secret: SecretEntry | None = Field(
        default=None, description="What signs them, so that the receiver knows who sends."
    )
    insecure: Flag = Field(
        default=False, description="Whether plain HTTP to another machine will do."
    )

    @model_validator(mode="after")
    def _private(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self.insecure and not _is_here(parts):
            raise ValueError(
                "plain http:// to another machine can be read and forged on the way: "
                "write https://, or `insecure: true`"
            )
        return self

    def noun(self, name: str, folder: Path) -> Webhook:
        """Return the webhook of that name."""
        return Webhook(
            name,
            self.url,
            frozenset(Topic(each) for each in self.on),
            self.secret.noun(folder) if self.secret else None,
            self.insecure,
        )


def _is_here(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
