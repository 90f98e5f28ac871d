"""What may be written in a lab file below ``web``: where browsers and other machines reach us.

For `orchestrator.lab_schema`. `check_web` says what must go together.
"""

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field

from orchestrator.lab_entry import Entry
from orchestrator.lab_report import Report
from orchestrator.lab_values import DnsName, Flag, ImageFile, Streams, WebAddress
from orchestrator.model import WebSettings

HOW_TO_TLS = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 "
    "-subj /CN=edgewake -addext 'subjectAltName=DNS:NAME' -keyout key.pem -out certificate.pem"
)


class TlsEntry(Entry):
    """What we show to browsers so that they know us, and nobody reads along."""

    certificate: ImageFile = Field(description="File with the certificate chain (PEM).")
    key: ImageFile = Field(description="File with its private key (PEM), without a password.")


class WebEntry(Entry):
    """Where the dashboard and the API are reached over TCP."""

    listen: WebAddress | None = Field(
        default=None,
        description="IP address and port, or `off`. Default: 127.0.0.1:8480, if that is free.",
    )
    names: list[DnsName] = Field(
        default=[], description="Host names that browsers reach it by, beside localhost."
    )
    tls: TlsEntry | None = Field(default=None, description="Certificate and key; default: no TLS.")
    behind_proxy: Flag = Field(
        default=False, description="A proxy in front of it speaks TLS and names the client."
    )
    streams: Streams = Field(
        default=64, description="How many browsers and programs may watch events at once."
    )

    def noun(self, folder: Path) -> WebSettings:
        """Return the settings, of a file in a folder."""
        return WebSettings(
            listen=self.listen or WebSettings().listen,
            is_default=self.listen is None,
            names=tuple(name.removesuffix(".").lower() for name in self.names),
            certificate=folder.absolute() / self.tls.certificate if self.tls else None,
            key=folder.absolute() / self.tls.key if self.tls else None,
            behind_proxy=self.behind_proxy,
            streams=self.streams,
        )


def check_web(web: WebSettings, report: Report) -> None:
    """Report an address that others reach, without anything that keeps what is said there secret.

    Whether there is a token, and whether files can be read, is seen when edgewake starts.
    """
    if not web.port or ip_address(web.address).is_loopback:
        return
    if web.certificate is None and not web.behind_proxy:
        report.add(
            ("web", "listen"),
            f"other machines reach {web.address}, so it needs 'tls' with a certificate and its key "
            f"(make them with: {HOW_TO_TLS}), or 'behind_proxy: true' if a proxy in front of it "
            "speaks TLS; then 'edgewake token create --role admin' makes a token to log in with",
        )
