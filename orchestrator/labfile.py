"""The lab file: the YAML a user writes, checked from end to end and turned into a `Lab`.

`load_lab` is for `orchestrator.cli` and whoever else starts from a file; `lab_schema` is for
editors. Everything that is wrong is reported in one `LabError`, each with its line and key. What
each key may hold is in `orchestrator.lab_schema`, how YAML is read in `orchestrator.lab_yaml`.
Whether image files exist is not asked: a wake says so.
"""

from pathlib import Path

from orchestrator.lab_checks import check, check_references, default_memory_mib
from orchestrator.lab_report import Report
from orchestrator.lab_schema import ImagePlaces, LabEntry, LabJsonSchema
from orchestrator.lab_yaml import Data, read, read_text, validated
from orchestrator.model import Lab, RedirectBy, WarmPlanning

IMAGES_DIR = Path("/var/lib/edgewake/images")


def load_lab(path: Path, *, images_dir: Path = IMAGES_DIR) -> Lab:
    """Read a lab file; LabError says everything that is wrong with it."""
    return parse_lab(read_text(path), path, images_dir=images_dir)


def parse_lab(text: str, path: Path, *, images_dir: Path = IMAGES_DIR) -> Lab:
    """Return the lab that a text describes; LabError says everything that is wrong with it.

    `path` is named in messages, gives the lab its default name, and image files are relative to
    its folder; files written ``built:NAME/FILE`` are below `images_dir`.
    """
    report = Report(path)
    data = read(text, report, needs="a zone")
    report.raise_if_any()
    entry = validated(LabEntry, _with_defaults(data, path), report)
    broken = check_references(entry, report)
    lab = _nouns(entry, ImagePlaces(path.parent, images_dir))
    check(lab, broken, report)
    report.raise_if_any()
    return lab


def lab_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a lab file, for editors."""
    schema = LabEntry.model_json_schema(schema_generator=LabJsonSchema)
    return {"$schema": LabJsonSchema.schema_dialect, **schema, "title": "edgewake lab file"}


def _with_defaults(data: dict[str, Data], path: Path) -> dict[str, Data]:
    """Return the data with a name, and with each service's missing keys from `defaults`."""
    data = {"name": path.stem.lower(), **data}
    defaults, services = data.get("defaults"), data.get("services")
    if isinstance(defaults, dict) and isinstance(services, dict):
        data["services"] = {
            name: {**defaults, **service} if isinstance(service, dict) else service
            for name, service in services.items()
        }
    return data


def _nouns(entry: LabEntry, places: ImagePlaces) -> Lab:
    zone = entry.zone
    return Lab(
        name=entry.name or "",
        dns=entry.dns.noun(zone, places.folder),
        hosts=tuple(host.noun(name) for name, host in entry.hosts.items()),
        routers=tuple(router.noun(name) for name, router in entry.routers.items()),
        links=tuple(link.noun() for link in entry.links),
        populations=tuple(clients.noun(name) for name, clients in entry.clients.items()),
        images=tuple(image.noun(name, places) for name, image in entry.images.items()),
        services=tuple(
            service.noun(name, zone, default_memory_mib(entry, name))
            for name, service in entry.services.items()
        ),
        traffic=entry.traffic.noun(),
        warm=WarmPlanning(entry.warm),
        chains=tuple(chain.noun(name) for name, chain in entry.chains.items()),
        slices=tuple(each.noun(name) for name, each in entry.slices.items()),
        network=entry.network.noun(),
        redirect=RedirectBy(entry.redirect),
        web=entry.web.noun(places.folder),
        webhooks=tuple(each.noun(name, places.folder) for name, each in entry.webhooks.items()),
    )
