"""What may be written in a lab file below ``dns``, apart from its plain keys.

For `orchestrator.lab_schema`, whose `DnsEntry` holds these. What must go together (names, keys that
are named) is for `orchestrator.lab_checks`.
"""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pydantic import Field, model_validator

from orchestrator.lab_entry import Entry
from orchestrator.lab_values import (
    Burst,
    ImageFile,
    Key,
    Line,
    Rate,
    RecordName,
    RecordType,
    ReplyRate,
    Slip,
    Socket,
    Subnet,
    TsigAlgorithm,
    Ttl,
    dns_name,
)
from orchestrator.model import RateLimit, Secondary, StaticRecord, Transfer, TsigKey, WakeBudget

LONGEST_TEXT_BYTES = 1024  # of a TXT record: a transfer and a reply have to hold it


class RateLimitEntry(Entry):
    """How many replies a network of clients gets over UDP."""

    per_second: ReplyRate = Field(
        default=200, description="Replies per second and kind of answer; 0: no limit."
    )
    slip: Slip = Field(default=2, description="Which of those beyond are sent truncated; 0: none.")
    exempt: list[Subnet] = Field(default=[], description="Networks that are not limited.")

    def noun(self) -> RateLimit:
        """Return the rate limit."""
        return RateLimit(self.per_second, self.slip, tuple(self.exempt))


class WakeBudgetEntry(Entry):
    """How many wakes DNS clients may begin."""

    per_client: Rate = Field(default=1.0, description="Wakes that one client may begin.")
    burst: Burst = Field(default=20, description="Wakes that one client may begin at once.")
    total: Rate = Field(default=5.0, description="Wakes that all clients together may begin.")
    total_burst: Burst = Field(
        default=100, description="Wakes that all clients together may begin at once."
    )
    exempt: list[Subnet] = Field(
        default=[], description="Subnets of our own resolvers, which count in the total only."
    )

    def noun(self) -> WakeBudget:
        """Return the budget."""
        return WakeBudget(
            client_rate_s=self.per_client,
            client_burst=self.burst,
            total_rate_s=self.total,
            total_burst=self.total_burst,
            exempt=tuple(self.exempt),
        )


class KeyEntry(Entry):
    """A secret that we share with another name server, to sign messages with (TSIG)."""

    algorithm: TsigAlgorithm = Field(default="hmac-sha256", description="What signs.")
    file: ImageFile = Field(
        description="File with the secret in base64, that only its owner may read."
    )

    def noun(self, name: str, folder: Path) -> TsigKey:
        """Return the key; whether its file can be read is seen when it is used."""
        return TsigKey(name, self.algorithm, folder.absolute() / self.file)


class SecondaryEntry(Entry):
    """A name server that keeps a copy of the zone's static part."""

    address: Socket = Field(description="IP address and port that it is told of changes at.")
    key: Key | None = Field(default=None, description="Key that signs what it is told.")

    def noun(self) -> Secondary:
        """Return the secondary."""
        return Secondary(*self.address, key=self.key or "")


class TransferEntry(Entry):
    """Who may have a copy of the zone's static part."""

    keys: list[Key] = Field(default=[], description="Keys that a request may be signed with.")
    allow: list[Subnet] = Field(default=[], description="Subnets that may have it without any key.")
    notify: list[SecondaryEntry] = Field(
        default=[], description="Secondaries that are told when it has changed."
    )

    def noun(self) -> Transfer:
        """Return who may."""
        return Transfer(
            keys=tuple(self.keys),
            allow=tuple(self.allow),
            notify=tuple(secondary.noun() for secondary in self.notify),
        )


class RecordEntry(Entry):
    """A record of the zone that has nothing to do with services."""

    name: RecordName = Field(description="Name, relative to the zone; `@` is the zone itself.")
    type: RecordType = Field(description="`A`, `AAAA`, `CNAME`, `MX`, `NS` or `TXT`.")
    value: Line = Field(description="What it says, as in a zone file; names in full.")
    ttl: Ttl = Field(default=3600, description="How long clients may keep it.")

    @model_validator(mode="after")
    def _value_fits_type(self) -> "RecordEntry":
        try:
            _VALUES[self.type](self.value)
        except ValueError as error:
            raise ValueError(f"the value of this {self.type} record is wrong: {error}") from None
        return self

    def noun(self, zone: str) -> StaticRecord:
        """Return the record, its name in full."""
        name = zone if self.name == "@" else self.name.removesuffix(".")
        if self.name != "@" and not self.name.endswith("."):
            name = f"{name}.{zone}"
        return StaticRecord(name, self.type, self.value, self.ttl)


def _mx(text: str) -> None:
    preference, space, exchange = text.partition(" ")
    if not space or not preference.isascii() or not preference.isdigit():
        raise ValueError("write a preference and a name, such as '10 mail.example.org'")
    if int(preference) > 0xFFFF:
        raise ValueError("a preference is at most 65535")
    dns_name(exchange.strip())


def _txt(text: str) -> None:
    if not 1 <= len(text.encode()) <= LONGEST_TEXT_BYTES:
        raise ValueError(f"a text has 1 to {LONGEST_TEXT_BYTES} bytes")


_VALUES = {
    "A": IPv4Address,
    "AAAA": IPv6Address,
    "CNAME": dns_name,
    "MX": _mx,
    "NS": dns_name,
    "TXT": _txt,
}
