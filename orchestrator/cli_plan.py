"""`edgewake plan`: place every service anew, or show what two terms cost each other.

With a lab file nothing has to run; without one, the running edgewake is asked. Plans and fronts are
made by `orchestrator.planner`; here are options and words. `orchestrator.cli_plan_network` has the
questions of the virtual network, which are commands below this one.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from typer.core import TyperGroup

from orchestrator import cli_plan_network, cli_study, display
from orchestrator.cli_place import place_of
from orchestrator.cli_waiting import asking, waiting
from orchestrator.errors import EdgewakeError

if TYPE_CHECKING:
    from orchestrator.planner import Planner
    from placement.problem import Options, Problem

SUFFIXES = (".svg", ".png", ".pdf")
MOST_S = 300.0  # the API's bound
SERVICES = "services"  # what is planned unless something else is named


def plan(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: Annotated[Path | None, typer.Argument(metavar="LAB", help="A lab file.")] = None,
    do_apply: Annotated[
        bool, typer.Option("--apply", help="Move what is awake to where the plan wants it.")
    ] = False,
    front: Annotated[
        str,
        typer.Option(metavar="TERM,TERM", help="Show the Pareto front of two terms, or more."),
    ] = "",
    points: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Of a front, only a grid of so many.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the front to FILE (.svg, .png or .pdf)."),
    ] = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="Show which idle instances to keep warm, and where.")
    ] = False,
    mib_price: Annotated[
        float | None,
        typer.Option(
            metavar="CLIENTS", min=0.0, help="With --warm: waiting clients a MiB must save."
        ),
    ] = None,
    algorithm: Annotated[
        str, typer.Option(metavar="NAME", help="A placement algorithm; default: auto.")
    ] = "",
    solver: Annotated[
        str, typer.Option(metavar="NAME", help="A solver for the exact algorithm; default: auto.")
    ] = "",
    deadline_s: Annotated[
        float | None,
        typer.Option("--deadline", metavar="SECONDS", min=0.1, max=MOST_S, help="Default: 30."),
    ] = None,
    gap: Annotated[
        float | None,
        typer.Option(min=0.0, help="End when the plan is proven so near to the best (0.01: 1 %)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Place every service anew, and show where and why.

    With LAB, nothing has to run. Without, it is the running edgewake that plans, and shows what
    would have to change, in order; nothing changes without --apply. With --front it shows the
    placements between which two terms have to be weighed, such as latency_ms,energy_w. With --warm
    it shows how each idle service should rest: cold, saved, paused or ready.

    Of the virtual network, see `edgewake plan routers` and `edgewake plan aggregation`.
    """
    terms = tuple(front.split(",")) if front else ()
    if warm:
        _check_warm(algorithm, other=bool(do_apply or terms or points or out))
    else:
        _check(lab, terms, points, out, do_apply=do_apply, algorithm=algorithm)
    _check_rest(solver, None if warm else mib_price)
    given = {"algorithm": algorithm, "solver": solver, "deadline_s": deadline_s, "gap": gap}
    given["mib_price"] = mib_price
    wish = {key: value for key, value in given.items() if value not in {None, ""}}
    if warm:
        _show(_warm(ctx, lab, wish), display.print_warm, as_json=as_json)
        return
    if terms:
        answer = _front(ctx, lab, terms, points, wish)
        if out is not None:
            _draw(answer, out)
        _show(answer, display.print_front, as_json=as_json)
        return
    if lab is None:
        with asking(place_of(ctx), "planning ...") as client:
            answer = client.post("/plans", {"apply": do_apply, **wish})
    else:
        with waiting("planning ..."):
            answer = _plan_offline(ctx, lab, wish)
    _show(answer, display.print_plan if lab else display.print_proposal, as_json=as_json)


def point(
    ctx: typer.Context,
    front: Annotated[str, typer.Argument(metavar="FRONT", help="As --front told it.")],
    number: Annotated[int, typer.Argument(metavar="POINT", min=1, help="Its number there.")],
    do_apply: Annotated[
        bool, typer.Option("--apply", help="Move what is awake to where the point has it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what a point of a front would change of what runs now, or go over to it."""
    with asking(place_of(ctx), "going over to it ...") as client:
        if do_apply:
            wish = {"apply": True, "of": front, "plan": number - 1}
            answer = client.post("/plans", wish)
        else:
            answer = client.get(f"/fronts/{quote(front, safe='')}/plans/{number - 1}")
    _show(answer, display.print_proposal, as_json=as_json)


class _Plans(TyperGroup):
    """Plans services where no other command is named: `edgewake plan LAB` is of old."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [SERVICES, *args])


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    plans = typer.Typer(
        name="plan",
        cls=_Plans,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Place every service anew, and show where and why; or the virtual network's routers.",
    )
    plans.command(SERVICES, epilog="Example: edgewake plan services lab.yaml")(plan)
    plans.command("point", epilog="Example: edgewake plan point 5b1f09ce-13 2 --apply")(point)
    cli_plan_network.register(plans)
    app.add_typer(plans)


def _check(
    lab: Path | None,
    terms: tuple[str, ...],
    points: int | None,
    out: Path | None,
    *,
    do_apply: bool,
    algorithm: str,
) -> None:
    """Refuse options that do not go together, and names that there are not."""
    if do_apply and lab is not None:
        raise typer.BadParameter("--apply is for what runs now: leave LAB away")
    if algorithm:
        with _malformed_options():
            from placement.registry import algorithm as registered

            registered(algorithm)
    if terms:
        _check_terms(terms)
        if do_apply or algorithm:
            raise typer.BadParameter("--front does not go with --apply or --algorithm")
    elif points is not None or out is not None:
        raise typer.BadParameter("--points and --out are for --front TERM,TERM")
    if points is not None and len(terms) != 2:
        raise typer.BadParameter("--points is for fronts of two terms")
    if out is not None:
        _check_out(out, terms)


def _show(answer: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    (display.print_json if as_json else show)(answer)


def _check_rest(solver: str, mib_price: float | None) -> None:
    """Refuse a solver that there is not, and a price that nothing is asked at."""
    if mib_price is not None:
        raise typer.BadParameter("--mib-price is for --warm")
    if solver not in {"", "auto"}:
        with _malformed_options():
            from placement.solvers import check_name

            check_name(solver)


def _check_warm(algorithm: str, *, other: bool) -> None:
    """Refuse what does not go with ``--warm``."""
    if other:
        raise typer.BadParameter("--warm does not go with --apply, --front, --points or --out")
    with _malformed_options():
        from placement.warm import WarmOptions
        from placement.warm.validate import check_options

        check_options(WarmOptions(algorithm=algorithm or "auto"))


def _check_out(out: Path, terms: tuple[str, ...]) -> None:
    if len(terms) != 2 or out.suffix not in SUFFIXES:
        many = ", ".join(SUFFIXES)
        raise typer.BadParameter(f"--out draws fronts of two terms, to a file named {many}")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"--out: there is no folder {out.parent}")


@contextmanager
def _malformed_options() -> Iterator[None]:
    """Turn what the library says of a name into what a command line says of its option."""
    from placement.problem import Malformed

    try:
        yield
    except Malformed as error:
        raise typer.BadParameter(f"--{error}") from error


def _check_terms(terms: tuple[str, ...]) -> None:
    from placement.evaluate import UNITS

    known = ", ".join(UNITS)
    for term in terms:
        if term not in UNITS:
            raise typer.BadParameter(f"--front: no term named {term!r}; known: {known}")
    if len(terms) < 2 or len(set(terms)) < len(terms):
        raise typer.BadParameter(f"--front: name two terms or more, each once; known: {known}")


def _plan_offline(ctx: typer.Context, lab: Path, wish: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.changes import Changes
    from orchestrator.views import Proposal
    from web.models.plans import ProposalDocument

    planner, question, options = _offline(ctx, lab, wish)
    made = planner.plan(question, options)
    return ProposalDocument.of(Proposal(made, Changes()), applied=False).as_json()


def _warm(ctx: typer.Context, lab: Path | None, wish: dict[str, Any]) -> dict[str, Any]:
    if lab is None:
        with asking(place_of(ctx), "planning what to keep warm ...") as client:
            answer: dict[str, Any] = client.post("/plans/warm", wish)
            return answer
    with waiting("planning what to keep warm ..."):
        from orchestrator.recipes import anonymous_images
        from orchestrator.warming import LabFacts, warming_of
        from placement.warm import WarmOptions
        from web.models.plans import WarmingDocument

        planner, question = _question(ctx, lab)
        known = LabFacts(unfit=question.unfit, late=anonymous_images(planner.lab))
        found = warming_of(planner, known, options=WarmOptions(**wish))
        return WarmingDocument.of(found).as_json()


def _front(
    ctx: typer.Context,
    lab: Path | None,
    terms: tuple[str, ...],
    points: int | None,
    wish: dict[str, Any],
) -> dict[str, Any]:
    if lab is None:
        with asking(place_of(ctx), "looking for the front ...") as client:
            body = {"terms": list(terms), "points": points, **wish}
            answer: dict[str, Any] = client.post("/fronts", body)
            return answer
    from web.models.plans import FrontDocument

    with waiting("looking for the front ...") as show:
        planner, question, options = _offline(ctx, lab, wish)

        def progress(found: int, share: float) -> None:
            show(f"{found} found", share, 1.0)

        found = planner.front(question, terms, options, points=points, progress=progress)
    return FrontDocument.of(found).as_json()


def _offline(
    ctx: typer.Context, lab: Path, wish: dict[str, Any]
) -> "tuple[Planner, Problem, Options]":
    """Return a planner of a lab file, the question with nothing running, and the options."""
    from orchestrator.planner import OPTIONS

    return *_question(ctx, lab), replace(OPTIONS, **wish)


def _question(ctx: typer.Context, lab: Path) -> "tuple[Planner, Problem]":
    """Return a planner of a lab file, and the question with nothing running."""
    from orchestrator.labfile import load_lab
    from orchestrator.library import Place, traits_of
    from orchestrator.local import kvm_known, library_of
    from orchestrator.planner import Planner

    wanted = load_lab(lab, images_dir=ctx.obj.images)
    kvm = kvm_known(ctx.obj)
    hosts = {host.name: Place(host, traits_of(host, kvm=kvm(host))) for host in wanted.hosts}
    library = library_of(ctx.obj)
    unfit = {service.name: library.unfit(wanted, service, hosts) for service in wanted.services}
    planner = Planner(wanted)
    return planner, planner.question([], unfit)


def _draw(answer: dict[str, Any], out: Path) -> None:
    """Draw a front of two terms."""
    with cli_study.in_our_words():
        from placement.study import figures
        from placement.study.extras import optional

        optional("matplotlib")
        one, other = answer["terms"]
        points = [(each["terms"][one], each["terms"][other]) for each in answer["plans"]]
        draw = figures.pareto({"front": points}, (one, other), knee=points[answer["knee"]])
        try:
            figures.save_as(draw, out)
        except OSError as error:
            raise EdgewakeError(f"{out} cannot be written: {error.strerror}") from error
