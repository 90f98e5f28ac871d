"""Which rung comes next, what it is worth to stay there, and who gives way: pure decisions."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ladder import GUESS_S, Prospects, Rates, SeenWakes, Victim, below, sacrifice
from orchestrator.model import LADDER, Ability, IdlePolicy, Rung

NOTHING_KNOWN = Prospects({}, {})


def an_ability(rung: Rung, *, works: bool = True, clock: bool | None = None) -> Ability:
    return Ability(
        "image", "host", rung, works, "" if works else "it hung", rouse_s=0.5, clock=clock
    )


def test_without_further_knowledge_every_rung_is_used() -> None:
    steps = [below(rung, IdlePolicy(), NOTHING_KNOWN) for rung in LADDER]
    assert steps == [Rung.PAUSED, Rung.SAVED, Rung.COLD, None]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (IdlePolicy(paused_s=0), Rung.SAVED),
        (IdlePolicy(paused_s=0, saved_s=0), Rung.COLD),
        (IdlePolicy(paused_s=0, saved_s=0, deepest=Rung.SAVED), None),
        (IdlePolicy(deepest=Rung.PAUSED), Rung.PAUSED),
        (IdlePolicy(paused_s=None), Rung.PAUSED),
    ],
)
def test_a_policy_leaves_rungs_out(policy: IdlePolicy, expected: Rung | None) -> None:
    assert below(Rung.READY, policy, NOTHING_KNOWN) is expected


def test_what_does_not_survive_a_rung_skips_it() -> None:
    lame = Prospects({Rung.PAUSED: an_ability(Rung.PAUSED, works=False)}, {})
    assert below(Rung.READY, IdlePolicy(), lame) is Rung.SAVED
    assert lame.why_not(Rung.PAUSED, IdlePolicy()) == "it hung"


def test_a_wrong_clock_matters_only_to_those_who_need_it() -> None:
    late = Prospects({Rung.PAUSED: an_ability(Rung.PAUSED, clock=False)}, {})
    assert below(Rung.READY, IdlePolicy(), late) is Rung.PAUSED
    assert below(Rung.READY, IdlePolicy(needs_clock=True), late) is Rung.SAVED
    unknown = Prospects({Rung.PAUSED: an_ability(Rung.PAUSED)}, {})
    assert below(Rung.READY, IdlePolicy(needs_clock=True), unknown) is Rung.PAUSED


def test_a_rung_that_is_slower_than_a_boot_is_left_out() -> None:
    slow = Prospects({}, {Rung.SAVED: 0.4, Rung.COLD: 0.2})
    assert below(Rung.PAUSED, IdlePolicy(), slow) is Rung.COLD
    assert "a boot 0.20 s" in slow.why_not(Rung.SAVED, IdlePolicy())
    unsure = Prospects({}, {Rung.SAVED: 0.4})
    assert below(Rung.PAUSED, IdlePolicy(), unsure) is Rung.SAVED


def test_costs_are_seen_else_probed_else_guessed() -> None:
    known = Prospects({Rung.SAVED: an_ability(Rung.SAVED)}, {Rung.COLD: 2.0})
    assert [known.cost(rung) for rung in LADDER] == [0.0, GUESS_S[Rung.PAUSED], 0.5, 2.0]


def test_wakes_are_remembered_by_their_median() -> None:
    costs = SeenWakes()
    assert costs.seen("i", "h", Rung.COLD) is None
    for seconds in (1.0, 30.0, 1.2):
        costs.note("i", "h", Rung.COLD, seconds)
    assert costs.seen("i", "h", Rung.COLD) == 1.2
    assert costs.seen("i", "other", Rung.COLD) is None


VICTIMS = st.lists(
    st.builds(
        Victim,
        instance=st.text("abc", min_size=1, max_size=3),
        memory_mib=st.integers(1, 50),
        value=st.floats(0, 10),
    ),
    max_size=8,
    unique_by=lambda victim: victim.instance,
)


@given(VICTIMS, st.integers(1, 120))
def test_no_more_is_sacrificed_than_is_needed(victims: list[Victim], needed: int) -> None:
    chosen = sacrifice(victims, needed)
    total = sum(victim.memory_mib for victim in victims)
    got = sum(victim.memory_mib for victim in chosen)
    assert bool(chosen) == (total >= needed)
    if chosen:
        assert got >= needed
        assert all(got - victim.memory_mib < needed for victim in chosen)


@given(VICTIMS)
def test_of_two_of_one_size_the_less_valuable_goes(victims: list[Victim]) -> None:
    for needed in {victim.memory_mib for victim in victims}:
        chosen = sacrifice(victims, needed)
        for went, stayed in itertools.product(chosen, set(victims) - set(chosen)):
            if went.memory_mib == stayed.memory_mib:
                assert went.value <= stayed.value


def test_rates_forget() -> None:
    rates = Rates(lambda _service: 0.25, half_life_s=10.0)
    assert rates.of("web", 0.0) == 0.25
    for second in range(1, 100):
        rates.use("web", float(second))
    busy = rates.of("web", 99.0)
    assert busy == pytest.approx(1.0, abs=0.01)
    assert rates.of("web", 109.0) == pytest.approx(busy / 2)
    assert rates.of("other", 109.0) == 0.25
