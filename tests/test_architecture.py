"""Keeps the arrows of docs/design.md true: who may import whom, read from the source by `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "placement", "images", "dns_boot", "web")

NOUNS = (
    "orchestrator.model",
    "orchestrator.network",
    "orchestrator.topology",
    "orchestrator.errors",
)
EVERYTHING = PACKAGES

# Who may import what of ours. The longest name that fits the importer counts; a name stands for
# the module and all below it.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "placement": ("placement",),
    "images": ("images",),
    "orchestrator.errors": (),
    "orchestrator.trace": (),
    "orchestrator.hours": (),
    "orchestrator.percentile": (),
    "orchestrator.model": (
        "images.bootspec",
        "images.facts",
        "orchestrator.hours",
        "orchestrator.network",
        "orchestrator.rules.tree",
        "orchestrator.webhook",
    ),
    "orchestrator.summons": ("orchestrator.model", "orchestrator.trace"),
    "orchestrator.wake_context": ("orchestrator.trace",),
    "orchestrator.webhook": (),
    "orchestrator.hypervisors": (
        *NOUNS,
        "orchestrator.hypervisors",
        "orchestrator.linux",
        "orchestrator.digests",
        "orchestrator.once",
        "images.bootspec",
        "images.facts",
        "images.qcow2_header",
    ),
    "orchestrator.linux": ("orchestrator.linux",),
    "orchestrator.network": (),
    "orchestrator.packet_filter": (),
    "orchestrator.rules": (
        "orchestrator.errors",
        "orchestrator.packet_filter",
        "orchestrator.rules",
    ),
    "orchestrator.guards": (*NOUNS, "orchestrator.guards", "orchestrator.packet_filter"),
    "orchestrator.routers": (
        *NOUNS,
        "orchestrator.linux",
        "orchestrator.routers",
        "orchestrator.routing",
    ),
    "orchestrator.routing": ("orchestrator.network",),
    "orchestrator.programs": (
        "orchestrator.errors",
        "orchestrator.network",
        "orchestrator.programs",
        "orchestrator.rules",
        "orchestrator.units",
    ),
    "orchestrator.steering": (
        *NOUNS,
        "orchestrator.linux",
        "orchestrator.rules",
        "orchestrator.steering",
    ),
    "orchestrator.steering.redirect": (
        *NOUNS,
        "orchestrator.linux",
        "orchestrator.packet_filter",
        "orchestrator.rules",
        "orchestrator.steering",
    ),
    "orchestrator.store": (*NOUNS, "orchestrator.store"),
    "orchestrator": ("orchestrator", "placement", "images"),
    "dns_boot": (
        *NOUNS,
        "dns_boot",
        "orchestrator.metrics",
        "orchestrator.percentile",
        "orchestrator.queries",
        "orchestrator.steering.base",
        "orchestrator.summons",
        "orchestrator.trace",
        "orchestrator.wake_context",
    ),
    "web": ("web", "orchestrator", "placement.problem", "placement.warm"),
    "orchestrator.boot_report": EVERYTHING,
    "orchestrator.cli": EVERYTHING,
    "orchestrator.cli_drain": EVERYTHING,
    "orchestrator.cli_images": EVERYTHING,
    "orchestrator.cli_net_daemon": EVERYTHING,
    "orchestrator.cli_net_load": EVERYTHING,
    "orchestrator.cli_place": EVERYTHING,
    "orchestrator.cli_plan": EVERYTHING,
    "orchestrator.cli_plan_network": EVERYTHING,
    "orchestrator.cli_trace": EVERYTHING,
    "orchestrator.cli_watch": EVERYTHING,
    "orchestrator.cli_waiting": EVERYTHING,
    "orchestrator.cli_web": EVERYTHING,
    "orchestrator.daemon": EVERYTHING,
    "orchestrator.demo": EVERYTHING,
    "orchestrator.display": EVERYTHING,
    "orchestrator.__main__": ("orchestrator.cli",),
}

# Only those who wire may know a back end by name; all others know the seam, `base`.
WIRING = (
    "orchestrator.boot_report",
    "orchestrator.cli",
    "orchestrator.cli_images",
    "orchestrator.cli_plan",
    "orchestrator.cli_plan_network",
    "orchestrator.cli_trace",
    "orchestrator.cli_watch",
    "orchestrator.cli_web",
    "orchestrator.daemon",
    "orchestrator.demo",
    "orchestrator.display",
    "orchestrator.doctor",
    "orchestrator.local",
    "orchestrator.steered",
    "orchestrator.host_shell",
    "orchestrator.host_probe",
    "orchestrator.host_checks",
    "orchestrator.host_advice",
    "orchestrator.host_networks",
    "orchestrator.cli_hosts",
    "orchestrator.cli_apps",
    "orchestrator.cli_net",
    "orchestrator.cli_net_load",
    "orchestrator.cli_scenario",
    "orchestrator.network_checks",
    "orchestrator.cli_net_link",
    "orchestrator.cli_net_parts",
)
BACK_ENDS = (
    "orchestrator.guards",
    "orchestrator.hypervisors",
    "orchestrator.routers",
    "orchestrator.store",
)
TOP = (*WIRING, "orchestrator.__main__")

SOLE_IMPORTERS: dict[str, tuple[str, ...]] = {
    "libvirt": (
        "orchestrator.hypervisors.libvirt_calls",
        "orchestrator.hypervisors.libvirt_census",
        "orchestrator.hypervisors.libvirt_consoles",
        "orchestrator.hypervisors.libvirt_domains",
        "orchestrator.hypervisors.libvirt_driver",
        "orchestrator.hypervisors.libvirt_errors",
        "orchestrator.hypervisors.libvirt_guests",
        "orchestrator.hypervisors.libvirt_half_made",
        "orchestrator.hypervisors.libvirt_line",
        "orchestrator.hypervisors.libvirt_migration",
        "orchestrator.hypervisors.libvirt_networks",
        "orchestrator.hypervisors.libvirt_pool",
        "orchestrator.hypervisors.libvirt_probe",
        "orchestrator.hypervisors.libvirt_tuning",
        "orchestrator.hypervisors.libxl_dumps",
        "orchestrator.hypervisors.libxl_log",
    ),
    "pulp": ("placement.solvers.through_pulp",),
    "highspy": ("placement.solvers.highs",),
    "ortools": ("placement.solvers.cpsat",),
    "dnslib": ("dns_boot",),
    "flask": ("web",),
    "cheroot": ("web.door.server",),
    "opentelemetry": ("orchestrator.trace_otel",),
    "pyroute2": ("orchestrator.linux", "orchestrator.routers", "orchestrator.steering"),
    "sqlalchemy": ("orchestrator.store.sql",),
    "networkx": ("orchestrator.topology", "orchestrator.routing", "placement"),
}


# --- the checker ----------------------------------------------------------------------------------


def violations(root: Path) -> list[str]:
    """Return every forbidden import below `root`, as ``file:line: who must not import what``."""
    modules = {
        _module(file.relative_to(root)): file
        for package in PACKAGES
        for file in sorted((root / package).rglob("*.py"))
    }
    return [
        f"{file.relative_to(root)}:{line}: {module} must not import {target}: {why}"
        for module, file in modules.items()
        for line, target in dict.fromkeys(_imports(module, file, frozenset(modules)))
        if (why := _objection(module, target))
    ]


def _module(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, file: Path, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(file.read_text(), file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, file, node)
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                yield node.lineno, longer if longer in modules else base
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            yield node.lineno, name


def _base(module: str, file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _imported_by_call(node: ast.Call) -> str:
    """Return the name in ``import_module("name")`` or ``__import__("name")``, else nothing."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    function = node.func.id if isinstance(node.func, ast.Name) else function
    if function not in {"import_module", "__import__"} or not node.args:
        return ""
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _objection(module: str, target: str) -> str:
    """Say why a module must not import a target; nothing if it may."""
    top = target.partition(".")[0]
    if top in SOLE_IMPORTERS and not _within(module, *SOLE_IMPORTERS[top]):
        return f"only {' and '.join(SOLE_IMPORTERS[top])} may"
    if top not in PACKAGES:
        return ""
    rule = max((name for name in MAY_IMPORT if _within(module, name)), key=len)
    if not _within(target, *MAY_IMPORT[rule]):
        return f"{rule} may import only {', '.join(MAY_IMPORT[rule]) or 'nothing of ours'}"
    if _within(target, *TOP) and not _within(module, *TOP):
        return "nothing imports the top"
    for edge in BACK_ENDS:
        inside = _within(module, edge, *WIRING)
        if _within(target, edge) and target not in {edge, f"{edge}.base"} and not inside:
            return f"only {' and '.join(WIRING)} know a back end by name; use {edge}.base"
    return ""


def _within(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


# --- the tests ------------------------------------------------------------------------------------


def test_the_arrows_point_down() -> None:
    found = violations(ROOT)
    assert not found, "\n".join(found)


def test_the_whole_tree_was_read() -> None:
    """Guards the checker against reading nothing: it must see imports that are known to exist."""
    file = ROOT / "orchestrator" / "store" / "sql.py"
    seen = {target for _, target in _imports("orchestrator.store.sql", file, frozenset())}
    assert {"sqlalchemy", "orchestrator.model", "orchestrator.store.base"} <= seen


def _tree(root: Path, **sources: str) -> Path:
    for name in (*(f"{package}/__init__" for package in PACKAGES), "orchestrator/store/base"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text("")
    for name, source in sources.items():
        file = root / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return root


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("placement.exact", "import orchestrator.model"),
        ("placement.exact", "from images import bootspec"),
        ("images.catalog", "from placement.problem import Plan"),
        ("images.families.linux", "from orchestrator.errors import EdgewakeError"),
        ("orchestrator.model", "from orchestrator.store.base import Store"),
        ("orchestrator.errors", "from orchestrator import model"),
        ("orchestrator.control", "from dns_boot.server import Server"),
        ("orchestrator.control", "import web"),
        ("orchestrator.control", "from orchestrator.store.sql import SqlStore"),
        ("orchestrator.control", "from orchestrator.store import sql"),
        ("orchestrator.control", "from .store import sql"),
        ("orchestrator.control", "from orchestrator.cli import main"),
        ("orchestrator.control", "def f():\n    import web"),
        ("orchestrator.control", "import importlib\nimportlib.import_module('web.app')"),
        ("orchestrator.control", "if TYPE_CHECKING:\n    import libvirt"),
        ("orchestrator.store.sql", "from orchestrator.hypervisors.base import Hypervisor"),
        ("orchestrator.store.sql", "from ..control import Orchestrator"),
        ("orchestrator.hypervisors.libvirt_driver", "import orchestrator.store.base"),
        ("orchestrator.steering.redirect", "from orchestrator.control import Orchestrator"),
        ("dns_boot.server", "from orchestrator.control import Orchestrator"),
        ("dns_boot.server", "from web.app import create_app"),
        ("web.app", "import dns_boot.server"),
        ("web.app", "from orchestrator.hypervisors.libvirt_driver import Driver"),
        ("orchestrator.hypervisors.memory", "import libvirt"),
        ("placement.heuristics.bins", "import pulp"),
        ("orchestrator.readiness", "from dnslib import DNSRecord"),
        ("orchestrator.control", "import flask.json"),
        ("orchestrator.store.memory", "from sqlalchemy.engine import Engine"),
        ("orchestrator.planner", "import networkx as nx"),
        ("orchestrator.planner", "__import__('networkx')"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, source: str) -> None:
    root = _tree(tmp_path, **{"orchestrator.store.sql": "", module: source})
    (found,) = violations(root)
    line = 1 + source.count("\n")
    assert found.startswith(f"{module.replace('.', '/')}.py:{line}: {module} must not import ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "orchestrator.cli",
            "import web, dns_boot.server, orchestrator.store.sql, placement.exact",
        ),
        ("orchestrator.control", "from orchestrator.store.base import Store"),
        ("orchestrator.control", "from orchestrator.store import base"),
        ("orchestrator.store.sql", "import sqlalchemy, orchestrator.model"),
        ("orchestrator.store.sql", "from .base import Store\nfrom ..errors import StoreError"),
        ("orchestrator.store.sql", "from .memory import MemoryStore"),
        ("placement.heuristics.vlsp", "import networkx\nfrom placement.problem import Plan"),
        ("orchestrator.topology", "import networkx, pathlib"),
        ("orchestrator.readiness", "import libvirt_like_name, pulpy"),
    ],
)
def test_an_allowed_import_is_not_found(tmp_path: Path, module: str, source: str) -> None:
    assert violations(_tree(tmp_path, **{module: source})) == []
