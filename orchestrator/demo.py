"""The main job, shown for real: one DNS query boots a machine, and the machine answers.

`run_demo` plays a newcomer at a terminal. It starts `edgewake up` as a process of its own, asks it
over UDP as any client would, fetches a page from the guest, waits for the idle sleep, wakes the
service again and prints where the time went. Whatever happens, also Ctrl-C, it ends by taking away
exactly what it made; a demo that was killed outright is cleaned up by the next one.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from dns_boot.query import Reply, ask
from images.build import build
from orchestrator.errors import EdgewakeError, StoreError
from orchestrator.labfile import load_lab
from orchestrator.model import Lab, Service
from orchestrator.state_dir import StateDir
from orchestrator.timeline import print_wakes
from orchestrator.trace import wake_of
from web.client import Client

STOP_PATIENCE_S = 30.0
FOLDER_PATIENCE_S = 30.0
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # guests are never behind
PAGE_PATIENCE_S = 5.0
NOT_SHOWN = frozenset({"head", "script", "style"})
LINES = frozenset({"h1", "h2", "p", "tr"})


@dataclass
class Demo:
    """One run: where it speaks, what lab it plays, and how to reach the edgewake it started."""

    out: Console
    lab_file: Path
    lab: Lab
    state: StateDir
    client: Client

    @property
    def service(self) -> Service:
        """The service that is asked for: the lab's first."""
        return self.lab.services[0]

    def play(self) -> None:
        """Wake, use, wake again, let sleep, wake once more, and tell where the time went."""
        name, patience_s = self.service.names[0], self.service.deadline_s + 2.0
        self.sleep("cold")  # of a demo that was killed
        self.title(f"{name} is asleep. Asking for it over DNS ...")
        with self.progress("query sent; the machine is being booted"):
            first = self.query(name, patience_s)
        self.show(first)
        self.title("The answer came from DNS; now the page, from the guest itself")
        self.fetch(first)
        self.title("The same question again: it is awake now")
        self.show(self.query(name, patience_s))
        self.title("Nobody uses it any more: waiting for it to go to sleep")
        self.wait_for_sleep()
        self.title("And once more: it only has to run on")
        self.show(self.query(name, patience_s))
        self.title("Now from its host's disk, where it holds no memory")
        with self.progress("its memory is being written"):
            self.sleep("saved")
        with self.progress("query sent; its memory is being read"):
            again = self.query(name, patience_s)
        self.show(again)
        self.fetch(again)
        self.title("Where the time went")
        wakes = self.client.get(f"/wakes?service={self.service.name}")["wakes"]
        print_wakes(self.out, [wake_of(wake) for wake in wakes])

    def query(self, name: str, patience_s: float) -> Reply:
        """Ask over UDP; EdgewakeError if the answer is not an address."""
        dns = self.lab.dns
        reply = ask((dns.listen, dns.port), name, "A", timeout_s=patience_s)
        if not reply.addresses:
            raise EdgewakeError(f"{name}: {reply.rcode} {reply.text}".rstrip())
        return reply

    def fetch(self, reply: Reply) -> None:
        """Fetch the page from the guest at the address that DNS gave, and show its words."""
        url = f"http://{reply.addresses[0]}/"
        began = time.monotonic()
        try:
            with DIRECTLY.open(url, timeout=PAGE_PATIENCE_S) as page:
                text = page.read(64 * 1024).decode(errors="replace")
        except (urllib.error.URLError, OSError) as error:
            raise EdgewakeError(f"{url}: the guest gave no page: {error}") from error
        took_ms = (time.monotonic() - began) * 1000
        self.out.print(f"  GET {url}  200, {took_ms:.1f} ms")
        for line in _words(text):
            self.out.print(f"    [dim]|[/] {line}", highlight=False)

    def wait_for_sleep(self) -> None:
        """Show why the service is still up, until it is not."""
        with self.out.status("") as status:
            while (now := self.seen())["state"] != "asleep":
                status.update(f"{self.service.name} is {now['state']}: {now['idle'] or '...'}")
                time.sleep(0.2)
        self.out.print(f"  {self.service.name} is asleep: its machine is {now['rung']}")

    def sleep(self, rung: str) -> None:
        """Put the service to sleep at a rung of the ladder."""
        self.client.post(f"/services/{self.service.name}/sleep", {"to": rung})

    def seen(self) -> dict[str, str]:
        """Return the service's state as the running edgewake sees it."""
        services = self.client.get("/status")["services"]
        return next(each for each in services if each["name"] == self.service.name)

    def show(self, reply: Reply) -> None:
        """Print an answer as dig would, with the time it took."""
        for address in reply.addresses:
            self.out.print(f"  {reply.name}.  {reply.ttl_s}  IN  A  {address}", highlight=False)
        self.out.print(f"  [dim];; {reply.rcode}, {reply.seconds * 1000:.1f} ms over UDP[/]")

    def title(self, text: str) -> None:
        """Begin a new step."""
        self.out.print(f"\n[bold]{text}[/]")

    @contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Show that something is going on, and for how long."""
        with self.out.status(f"{text} ..."):
            yield


def run_demo(lab_file: Path, state: Path, *, out: Console | None = None) -> None:
    """Play the demo with this lab file, keeping everything in the folder `state` (removed after).

    Raises `EdgewakeError` when something did not work, KeyboardInterrupt when it was interrupted or
    told to end; whatever was made is taken away first.
    """
    out = out or Console()
    folder = StateDir(state)
    lab = load_lab(lab_file, images_dir=folder.images)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as undo:
        undo.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        with _opened(folder, out):
            undo.callback(_remove, folder, out)
            _build_images(lab, folder.images, out)
        demo = Demo(out, lab_file, lab, folder, Client(folder.socket))
        out.print(f"[bold]Starting edgewake[/] with {lab_file.name}: zone {lab.dns.zone}")
        undo.enter_context(_running(demo))
        demo.play()


def _build_images(lab: Lab, images: Path, out: Console) -> None:
    """Build the images that the lab names as ``built:``, which are below that folder."""
    files = [path for image in lab.images for path in image.files if path.is_relative_to(images)]
    for name in sorted({path.relative_to(images).parts[0] for path in files}):
        began = time.monotonic()
        with out.status(f"building the image {name} ..."):
            folder = build(name, images)
        size_kb = sum(file.stat().st_size for file in folder.iterdir()) / 1000
        took_s = time.monotonic() - began
        out.print(f"Built the image [bold]{name}[/]: {size_kb:,.0f} kB in {took_s:.1f} s")


def _opened(folder: StateDir, out: Console) -> StateDir:
    """Open the demo's folder; one that an earlier, killed demo still cleans up is waited for."""
    end = time.monotonic() + FOLDER_PATIENCE_S
    with out.status("waiting for an earlier demo to be cleaned up ...") as status:
        while True:
            try:
                opened = StateDir.open(folder.path)
            except StoreError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                status.stop()
                return opened


@contextmanager
def _running(demo: Demo) -> Iterator[None]:
    """Run `edgewake up` beside us; it takes its guests and network away when it ends.

    It has a session of its own, so that a Ctrl-C at the terminal reaches us alone and we can end it
    in order; and it ends by itself when we are gone, however that happens.
    """
    log = demo.state.path / "up.log"
    command = [sys.executable, "-m", "orchestrator", "--state", str(demo.state.path), "up"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--ephemeral", "--while-stdin", "--json", str(demo.lab_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        with demo.progress("seeing whether KVM boots a guest here, making the network"):
            _await_ready(process, log)
        demo.out.print(f"  [dim]{_accelerator(log)}[/]", highlight=False)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience must not leave half of it behind
        demo.out.print("\n[bold]Cleaning up[/] guests, network and state of this demo")
        with demo.out.status("ending the guests ..."):
            process.send_signal(signal.SIGTERM)
            _await_end(process, demo.out)


def _await_end(process: subprocess.Popen[bytes], out: Console) -> None:
    """Wait until edgewake has ended, and close what we held of it."""
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        out.print("[red]edgewake did not end in time; run the demo again to clean up[/]")
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Read the one line that `edgewake up` prints when it is up."""
    assert process.stdout is not None  # noqa: S101 - we asked for a pipe
    line = process.stdout.readline()
    try:
        json.loads(line)
    except json.JSONDecodeError:
        said = log.read_text(errors="replace").strip()
        raise EdgewakeError(f"edgewake did not start: {said or 'it said nothing'}") from None


def _accelerator(log: Path) -> str:
    """Return what edgewake said about KVM and TCG in its log, and why."""
    said = [line for line in log.read_text(errors="replace").splitlines() if "guests run" in line]
    return said[-1].partition("daemon: ")[2] if said else ""


def _remove(folder: StateDir, out: Console) -> None:
    """Remove the demo's own folder, unless another demo is using it."""
    try:
        with StateDir.open(folder.path):
            shutil.rmtree(folder.path)
    except EdgewakeError as error:
        out.print(f"[yellow]{error}[/]")


class _Words(HTMLParser):
    """Collects the text of a page: a line for each heading, paragraph and table row."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class's
        """Begin a line, or something that is not shown."""
        self._hidden += tag in NOT_SHOWN
        if tag in LINES:
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        """End what is not shown."""
        self._hidden -= tag in NOT_SHOWN

    def handle_data(self, data: str) -> None:
        """Take in words; the cells of a row stand in columns."""
        if not self._hidden and (words := " ".join(data.split())):
            self.lines[-1] = f"{self.lines[-1]:<14}{words}" if self.lines[-1] else words


def _words(page: str) -> list[str]:
    parser = _Words()
    parser.feed(page)
    return [line for line in parser.lines if line]
