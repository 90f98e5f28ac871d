"""What an idle instance is worth: the model of waiting, one small function for each formula.

Requests for a service are a Poisson process of rate r (requests/s), and wait W seconds on average.
By Little's law r W is the mean number of clients that wait (J. D. C. Little, A proof for the
queuing formula L = λW, Operations Research 9, 1961); the sum of it over services is minimised, so
that frequent services count more and times need no weights.

A pool of k anonymous instances, each replaced after it was taken, is a base-stock system whose
unmet demand is lost to it (the wake boots cold, and fetches nothing from the pool). The number of
replacements under way is that of busy lines in Erlang's loss system with k lines, whatever the
distribution of the time that a replacement takes (W. Karush, A queuing model for an inventory
problem, Operations Research 5, 1957), so a wake finds the pool empty with Erlang's probability B.
"""

import math


def value(wake_cost_saved_s: float, rate_s: float, memory_mib: float) -> float:
    """Return what idle memory is worth: wake cost saved (s) x request rate (1/s) / memory (MiB).

    In mean clients that wait no longer, for each MiB. What holds no memory is worth infinitely
    much, if it saves anything. The least valuable instance goes first when memory is short.
    """
    saved = wake_cost_saved_s * rate_s
    if memory_mib > 0:
        return saved / memory_mib
    return math.inf if saved > 0 else 0.0


def asleep(rate_s: float, idle_s: float | None) -> float:
    """Return the probability that a request finds a service asleep: exp(-rate * idle).

    It is asleep if nobody asked for `idle_s` seconds before. The time since the last arrival of a
    Poisson process is exponentially distributed at every instant, also when a request comes
    (R. W. Wolff, Poisson arrivals see time averages, Operations Research 30, 1982). Who never
    sleeps (None) is never found asleep, and who goes to sleep at once always is.
    """
    return 0.0 if idle_s is None else math.exp(-rate_s * idle_s)


def erlang_b(kept: int, erlangs: float) -> float:
    """Return Erlang's loss probability B(k, A) by its recursion from B(0, A) = 1.

    B(k, A) = A B(k-1, A) / (k + A B(k-1, A)). `erlangs` is A, wakes per second x seconds to replace
    an instance. It falls and is convex in k (E. J. Messerli, Proof of a convexity property of the
    Erlang B formula, Bell System Technical Journal 51, 1972).
    """
    if erlangs <= 0:
        return 0.0 if kept else 1.0
    lost = 1.0
    for lines in range(1, kept + 1):
        lost = erlangs * lost / (lines + erlangs * lost)
    return lost


def overflow(kept: int, erlangs: float) -> float:
    """Return A B(k, A), the load in erlangs that finds a pool of k empty; convex in A."""
    return erlangs * erlang_b(kept, erlangs)


def overflow_slope(kept: int, erlangs: float) -> float:
    """Return the derivative of `overflow` by A: B (1 + k - A + A B).

    From dB/dA = B (k/A - 1 + B) (D. L. Jagerman, Some properties of the Erlang loss function, Bell
    System Technical Journal 53, 1974).
    """
    if erlangs <= 0:
        return 0.0 if kept else 1.0
    lost = erlang_b(kept, erlangs)
    return lost * (1 + kept - erlangs + erlangs * lost)
