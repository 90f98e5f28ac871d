"""Boot recipes: which services boot guests that cannot be told apart but by name and address.

An *anonymous instance* is booted by a recipe before anybody knows for which service, and rests
until a service of that recipe claims it. It is an `Instance` whose `service` is a name made here,
which no service can have: ``spare.RECIPE.VERSION.NUMBER``. Both `orchestrator.warming`, which says
how many are worth their memory, and `orchestrator.spares`, which keeps them, ask here what is
equal. Pure functions of a lab.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.model import IdlePolicy, Lab, Reply, Service

PREFIX = "spare."  # a service's name has no dot
HASH_DIGITS = 10


def anonymous_images(lab: Lab) -> frozenset[str]:
    """Return the images whose guests need not be told for which service they are booted."""
    return frozenset(image.name for image in lab.images if image.anonymous)


def recipe_of(lab: Lab, service: Service, image: str) -> str:
    """Return the name of what a service's guests are made of, if they boot that image.

    Services with the same one differ in nothing that a guest, or who starts it, is told: image with
    its arguments, config, size, readiness probe, and what becomes of one that crashes. They also
    agree whether a guest's clock has to be right.
    """
    noun = next((each for each in lab.images if each.name == image), None)
    told = (
        noun,
        sorted(service.config),
        service.resources,
        service.cpu_cap,
        service.probe,
        service.on_crash,
        service.idle.needs_clock,
    )
    return f"{image}-{_short(repr(told))}"


def recipes(lab: Lab) -> dict[str, Service]:
    """Return the recipes of anonymous instances that a lab has.

    Each is given as a service of that name, which boots such instances and lets them rest paused.
    """
    found: dict[str, Service] = {}
    for service, image, name in _all(lab):
        found.setdefault(name, _nobodys(service, image, name))
    return found


def recipes_by_service(lab: Lab) -> dict[str, frozenset[str]]:
    """Return the recipes of each service that has any, one for each anonymous image of it."""
    found: dict[str, set[str]] = {}
    for service, _, name in _all(lab):
        found.setdefault(service.name, set()).add(name)
    return {service: frozenset(names) for service, names in found.items()}


def slot(recipe: str, version: str, number: int) -> str:
    """Return what stands for the service of an anonymous instance, until one claims it.

    `version` is the digest of what is booted.
    """
    return f"{PREFIX}{recipe}.{version[:HASH_DIGITS]}.{number}"


def is_spare(service: str) -> bool:
    """Return whether a service's name is that of an anonymous instance instead."""
    return service.startswith(PREFIX)


def recipe_in(slot: str) -> str:
    """Return the recipe of an anonymous instance."""
    return slot.removeprefix(PREFIX).partition(".")[0]


def is_made_of(slot: str, recipe: str, version: str) -> bool:
    """Return whether an anonymous instance was booted by a recipe, from these very bytes."""
    return slot.rpartition(".")[0] == f"{PREFIX}{recipe}.{version[:HASH_DIGITS]}"


def spare_name(lab: str, slot: str) -> str:
    """Return the name of an anonymous instance, which is its domain's: ``ew-lab-spare.5f0c-0``.

    It keeps it as an instance of a service, and may take it for its host's name: so it is short.
    """
    made_of, _, number = slot.rpartition(".")
    return f"ew-{lab}-{PREFIX}{_short(made_of)}-{number}"


def _all(lab: Lab) -> Iterator[tuple[Service, str, str]]:
    """Return service, image and recipe, for every anonymous image of every service."""
    anonymous = anonymous_images(lab)
    for service in lab.services:
        for image in service.images:
            if image in anonymous:
                yield service, image, recipe_of(lab, service, image)


def _nobodys(service: Service, image: str, name: str) -> Service:
    return replace(
        service,
        name=name,
        names=(),
        images=(image,),
        ports=(),
        alpn=(),
        replicas=1,
        scale=None,
        reply=Reply.HELD,
        wake_on_traffic=False,
        idle=IdlePolicy(
            paused_s=None, saved_s=0.0, needs_clock=service.idle.needs_clock, min_up_s=0.0
        ),
    )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
