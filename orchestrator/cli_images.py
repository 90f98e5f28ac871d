"""The commands `edgewake image ...`: files, recipes, and the catalogue in the state directory.

They need no edgewake to run: the catalogue is a folder with locks of its own. docs/cli.md has every
command with an example.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from images.bootspec import Platform
from images.errors import ImageError
from orchestrator import display
from orchestrator.errors import EdgewakeError
from orchestrator.state_dir import StateDir
from web.client import Client, NotRunning

if TYPE_CHECKING:
    from images.catalog import Catalog, Entry, Flavour, Guard, Layer, Progress, PublicKey

SHORT = 12  # hexadecimal digits of a digest, for people
FAILED = 1

images_app = typer.Typer(
    name="image",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look at images, build them, and keep them in a catalogue.",
    epilog="Example: edgewake image list",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Ref = Annotated[
    str, typer.Argument(metavar="REF", help="An image: NAME, NAME:TAG or the start of a digest.")
]


@images_app.command(epilog="Example: edgewake image add web:1 ./web.virtio")
def add(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME[:TAG]", help="What it is to be called.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, URLs or OCI layouts (oci:PATH:REF): the flavours of the image.",
        ),
    ],
    family: Annotated[str, typer.Option(help="What kind of guest it is.")] = "",
    initrd: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An initial RAM disk that goes with it.")
    ] = None,
    disk: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A disk that goes with it; more than once for more."),
    ] = None,
    cmdline: Annotated[str, typer.Option(help="What its program is told.")] = "",
    platform: Annotated[
        list[Platform] | None,
        typer.Option(help="The only hosts it is for; more than once for more."),
    ] = None,
    flavour: Annotated[
        str, typer.Option(metavar="WORD", help="What it is called among the flavours of NAME.")
    ] = "",
    digest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="sha256:...", help="Digest of the file; a URL needs it. One for each source."
        ),
    ] = None,
    signature: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A minisign signature; more than once for more files."),
    ] = None,
    key: Annotated[
        str, typer.Option(metavar="FILE|KEY", help="The minisign public key of who signed it.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a flavour of that name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add an image to the catalogue, or another flavour of one.

    Nothing of it can be seen before every byte is there and right, and it is known to boot
    somewhere. What the lab of a running edgewake uses cannot be replaced.
    """
    from images.catalog import Adding, ImageConfig, Part, Role

    with _image_errors(), _progress(as_json=as_json) as progress:
        parts = [Part(initrd, Role.INITRD)] if initrd else []
        parts += [Part(each, Role.DISK) for each in disk or []]
        catalog = _catalog(ctx)
        how = Adding(
            config=ImageConfig(family=family, platforms=tuple(platform or ()), cmdline=cmdline),
            parts=tuple(parts),
            flavour=flavour,
            signatures=tuple(signature or ()),
            keys=_keys(key),
            replace=replace,
            guard=_guard(ctx, catalog),
            progress=progress,
        )
        _make_folders(ctx.obj)
        entry = catalog.add_from(name, *sources, digests=digest or (), how=how)
    if as_json:
        display.print_json(_document(catalog, entry))
    else:
        _print_entry(catalog, entry)


@images_app.command("list", epilog="Example: edgewake image list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the images of the catalogue."""
    with _image_errors():
        catalog = _catalog(ctx)
        entries = catalog.list()
    if as_json:
        display.print_json({"images": [_document(catalog, entry) for entry in entries]})
    elif entries:
        _print_entries(entries)
    else:
        typer.echo("no images yet; `edgewake image add` adds one")


@images_app.command(epilog="Example: edgewake image show web:1")
def show(ctx: typer.Context, ref: Ref, as_json: Json = False) -> None:
    """Show what an image is: its flavours, their files, and who signed them."""
    with _image_errors():
        catalog = _catalog(ctx)
        entry = catalog.find(ref)
    if as_json:
        display.print_json(_document(catalog, entry))
    else:
        _print_entry(catalog, entry)


@images_app.command(epilog="Example: edgewake image tag web:1 web:stable")
def tag(
    ctx: typer.Context,
    ref: Ref,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another NAME or NAME:TAG.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the name away from another image.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give an image another name, too.

    A name that the lab of a running edgewake uses cannot be taken away from its image.
    """
    with _image_errors():
        catalog = _catalog(ctx)
        entry = catalog.tag(ref, new, replace_it=replace, guard=_guard(ctx, catalog))
    if as_json:
        display.print_json(_document(catalog, entry))
    else:
        typer.echo(f"{entry.ref}: {entry.digest}")


@images_app.command(epilog="Example: edgewake image remove web:1")
def remove(ctx: typer.Context, ref: Ref, as_json: Json = False) -> None:
    """Take a name out of the catalogue.

    The files stay until `edgewake image gc` finds that nothing needs them. A name that the lab of
    a running edgewake uses cannot be taken out.
    """
    with _image_errors():
        catalog = _catalog(ctx)
        entry = catalog.remove(ref, guard=_guard(ctx, catalog))
    if as_json:
        display.print_json(_document(catalog, entry))
    else:
        typer.echo(f"{entry.ref}: removed")


@images_app.command(epilog="Example: edgewake image verify")
def verify(
    ctx: typer.Context,
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="An image; none for all.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """Read every byte of an image, or of the whole catalogue, and say what is wrong.

    Ends with 1 if anything is.
    """
    with _image_errors(), _progress(as_json=as_json) as progress:
        damages = _catalog(ctx).verify(ref, progress)
    if as_json:
        display.print_json(
            {
                "damages": [
                    {"what": each.what, "message": each.message, "images": list(each.refs)}
                    for each in damages
                ]
            }
        )
    for each in () if as_json else damages:
        needed = f" (needed by {', '.join(each.refs)})" if each.refs else ""
        typer.echo(f"{each.message}{needed}")
    if damages:
        raise typer.Exit(FAILED)
    if not as_json:
        typer.echo("every byte is right")


@images_app.command(epilog="Example: edgewake image gc --dry-run")
def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is younger than a day.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove files that no image of the catalogue needs any more.

    What a guest runs from stays, whether edgewake runs or not; so does what is younger than a day:
    another tool may be about to give it a name.
    """
    from images.catalog.upkeep import GRACE_S

    grace_s = 0 if everything else GRACE_S
    with _image_errors():
        removed = _catalog(ctx).collect(grace_s=grace_s, dry_run=dry_run)
    if as_json:
        files = [{"path": str(each.path), "size": each.size} for each in removed]
        display.print_json({"removed": files, "dry_run": dry_run})
        return
    for each in removed:
        typer.echo(f"  {each.path.name}  {_size(each.size)}")
    freed = _size(sum(each.size for each in removed))
    typer.echo(f"{len(removed)} files, {freed}: {'would go' if dry_run else 'removed'}")


@images_app.command(epilog="Example: edgewake image export web:1 web.tar")
def export(
    ctx: typer.Context,
    ref: Ref,
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A new folder, or a new file NAME.tar.")
    ],
    as_json: Json = False,
) -> None:
    """Write an image as an OCI image layout, for another machine or another tool."""
    with _image_errors(), _progress(as_json=as_json) as progress:
        entry = _catalog(ctx).export(ref, target, progress)
    if as_json:
        display.print_json({"image": entry.ref, "digest": entry.digest, "target": str(target)})
    else:
        typer.echo(f"{entry.ref}: written to {target}")


# --- files, without the catalogue -------------------------------------------------------------


@images_app.command(epilog="Example: edgewake image inspect /boot/vmlinuz")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")], as_json: Json = False
) -> None:
    """Say what a file is, where it can run, and what it wants; or why it can run nowhere."""
    from images.inspect import inspect as look
    from images.report import facts_json, facts_text

    with _image_errors():
        facts = look(file)
    if as_json:
        display.print_json({"file": str(file), **facts_json(facts)})
    else:
        typer.echo(facts_text(file, facts), nl=False)


@images_app.command(name="boot-spec", epilog="Example: edgewake image boot-spec lab.yaml web")
def boot_spec(
    ctx: typer.Context,
    *,
    lab: Annotated[Path, typer.Argument(metavar="LAB", help="A lab file.")],
    service: Annotated[str, typer.Argument(metavar="NAME", help="A service of the lab.")],
    host: Annotated[
        str, typer.Option(metavar="HOST", help="On this host; default: the first that can.")
    ] = "",
    xml: Annotated[bool, typer.Option("--xml", help="Print the domain XML for libvirt.")] = False,
    as_json: Json = False,
) -> None:
    """Show how a service would be booted: command line, devices, machine, and how it ends.

    That is what its image's family says, and what the lab file overrules. Nothing is started. The
    address is the first of the host's pool.
    """
    from orchestrator.boot_report import boot_json, boot_text, planned
    from orchestrator.labfile import load_lab
    from orchestrator.local import kvm_known, library_of

    wanted = load_lab(lab, images_dir=ctx.obj.images)
    boot = planned(wanted, library_of(ctx.obj), service, host, kvm=kvm_known(ctx.obj))
    if as_json:
        display.print_json(boot_json(boot))
    else:
        typer.echo(boot.xml if xml else boot_text(boot), nl=False)


@images_app.command(epilog="Example: edgewake image build hello")
def build(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE...", help="hello, linux-microvm; none for all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build sample images on this machine, for lab files to name as built:RECIPE/FILE."""
    from images.build import RECIPES
    from images.build import build as run

    _make_folders(ctx.obj)
    folders = []
    for name in names or RECIPES:
        with _image_errors():
            folders.append(run(name, ctx.obj.images, _say_nothing if as_json else _say))
        if not as_json:
            typer.echo(f"{folders[-1]}: built")
    if as_json:
        display.print_json({"folders": [str(folder) for folder in folders]})


# --- parts ------------------------------------------------------------------------------------


def _catalog(ctx: typer.Context) -> "Catalog":
    from images.catalog import Catalog

    return Catalog(ctx.obj.catalog)


def _in_use(ctx: typer.Context) -> list[str]:
    """Return the images of the catalogue that the lab of the running edgewake names."""
    try:
        names: list[str] = Client(ctx.obj.socket).get("/images")["catalog"]
    except NotRunning:
        return []
    return names


def _guard(ctx: typer.Context, catalog: "Catalog") -> "Guard":
    """Return what objects to taking away an image that the running edgewake may boot."""

    def objects(entry: "Entry") -> None:
        for name in _in_use(ctx):
            if catalog.depends(name, entry):
                raise EdgewakeError(
                    f"{entry.ref} is used by the lab of the running edgewake, as {name!r}",
                    hint="apply a lab without it first",
                )

    return objects


def _make_folders(state: StateDir) -> None:
    """Make the state directory as `edgewake up` would, if it was never there."""
    if not state.images.is_dir():
        StateDir.open(state.path).close()


def _keys(key: str) -> "tuple[PublicKey, ...]":
    from images.catalog import keys_of

    if not key:
        return ()
    path = Path(key)
    try:
        is_file = path.is_file()
    except OSError:  # a name that is too long for one is a key, if anything
        is_file = False
    return keys_of(path.read_text(errors="replace") if is_file else key, f"--key {key}")


@contextmanager
def _image_errors() -> Iterator[None]:
    """Turn errors of the images package into ours, which the command line knows how to tell."""
    try:
        yield
    except ImageError as error:
        raise EdgewakeError(str(error)) from error


@contextmanager
def _progress(*, as_json: bool) -> "Iterator[Progress]":
    """Show how far long work is, if somebody is there to see it."""
    from images.catalog.blobs import quiet

    if as_json or not sys.stderr.isatty():
        yield quiet
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {"": bars.add_task("", visible=False)}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what[-60:], total=None)
            bars.update(tasks[what], completed=done, total=total or None, visible=True)

        yield tell


def _say(text: str) -> None:
    typer.echo(f"  {text} ...", err=True)


def _say_nothing(_text: str) -> None:
    pass


# --- printing ---------------------------------------------------------------------------------


def _print_entries(entries: "Sequence[Entry]") -> None:
    from rich.table import Table

    table = Table("image", "digest", "flavours", "family", "size", "added", "remark", box=None)
    for entry in entries:
        families = {each.config.family or "by its bytes" for each in entry.flavours}
        table.add_row(
            entry.ref,
            entry.short,
            ", ".join(each.name for each in entry.flavours),
            ", ".join(sorted(families)),
            _size(entry.size),
            entry.added.partition("T")[0],
            "; ".join(_problems(entry)),
        )
    display.console(markup=False).print(table)


def _problems(entry: "Entry") -> list[str]:
    if entry.problem:
        return [entry.problem]
    return [f"{each.name}: {each.problem}" for each in entry.flavours if each.problem]


def _print_entry(catalog: "Catalog", entry: "Entry") -> None:
    typer.echo(f"{entry.ref}: {entry.digest}")
    for flavour in entry.flavours:
        typer.echo(f"\n{flavour.name}: {flavour.digest}")
        if flavour.problem:
            typer.echo(f"  {flavour.problem}")
        for name, value in flavour.config.document().items():
            typer.echo(f"  {name:<16} {_words(value)}")
        for layer in flavour.layers:
            typer.echo(f"  {_role(layer):<16} {_file(catalog, layer)}")


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _role(layer: "Layer") -> str:
    return f"{layer.role} {layer.format}".rstrip()


def _file(catalog: "Catalog", layer: "Layer") -> str:
    told = [f"{layer.blob.digest}, {_size(layer.blob.size)}"]
    if layer.title:
        told.append(f"from {layer.title}")
    if layer.name:
        told.append(f"device {layer.name}")
    if not layer.read_only:
        told.append("writable")
    if signature := layer.signature:
        known = any(key.key_id == signature.key_id for key in catalog.keys)
        trusted = "a trusted key" if known else "not among the trusted keys"
        comment = "".join(each for each in signature.comment if each.isprintable())
        told.append(f"signed by {signature.key_id} ({trusted}): {comment}")
    return ", ".join(told)


def _document(catalog: "Catalog", entry: "Entry") -> dict[str, Any]:
    return {
        "image": entry.ref,
        "digest": entry.digest,
        "added": entry.added,
        "problem": entry.problem,
        "size": entry.size,
        "flavours": [_flavour_document(catalog, each) for each in entry.flavours],
    }


def _flavour_document(catalog: "Catalog", flavour: "Flavour") -> dict[str, Any]:
    return {
        "name": flavour.name,
        "digest": flavour.digest,
        "problem": flavour.problem,
        "config": flavour.config.document(),
        "files": [_layer_document(catalog, layer) for layer in flavour.layers],
    }


def _layer_document(catalog: "Catalog", layer: "Layer") -> dict[str, Any]:
    signature = layer.signature
    return {
        "role": layer.role.value,
        "digest": layer.blob.digest,
        "size": layer.blob.size,
        "format": layer.format,
        "name": layer.name,
        "read_only": layer.read_only,
        "title": layer.title,
        "signature": signature
        and {
            "key_id": signature.key_id,
            "comment": signature.comment,
            "trusted": any(key.key_id == signature.key_id for key in catalog.keys),
        },
    }


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
