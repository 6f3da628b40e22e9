"""``make faults``: hundreds of faults, and what became of every job. The exit code says whether a promise was broken.

``--seed N --round K`` plays one round of a run again, as far as timing allows. ``--results FILE`` keeps what was
counted, after every audited round: started again with the same seed, the run goes on with the next round; another seed
adds to the same table.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from tests.faults.findings import FaultCounts
from tests.faults.plan import Fault, plan
from tests.faults.results import Results, ResultsError, Session
from tests.faults.run import Result, run
from tests.faults.table import publish, report, versions

ENOUGH = 500
DEATHS = 3
UNUSABLE = 2
INTERRUPTED = 130  # the exit code, as of a shell


@dataclass(frozen=True, slots=True)
class Goal:
    """When a run ends: after ``minutes`` of this process, or at a total of ``faults``, whichever comes first."""

    minutes: float | None
    faults: int | None

    def is_reached(self, tally: FaultCounts, seconds: float) -> bool:
        """``tally`` is of all seeds, ``seconds`` of this process."""
        if self.minutes is not None and seconds >= 60 * self.minutes:
            return True
        if self.faults is not None:
            return tally.total >= self.faults
        if self.minutes is not None:
            return False
        return (tally.total >= ENOUGH and not tally.unreached(DEATHS)) or tally.total >= 2 * ENOUGH


def main() -> int:
    options = _options()
    try:
        results = Results(options.results)
        with results.held():
            return _run(options, results)
    except ResultsError as error:
        say(str(error))
        return UNUSABLE


def _run(options: argparse.Namespace, results: Results) -> int:
    if results.broken:
        say(*results.broken, f"{options.results} holds broken promises: mend them and begin a new file")
        return UNUSABLE
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    goal = Goal(options.minutes, options.faults)
    directory = Path(tempfile.mkdtemp(prefix="filmgate-faults-"))
    interrupted = False
    try:
        if options.results is None or not goal.is_reached(results.tally, 0):
            asyncio.run(_play(directory, seed, options.round, goal, results))
    except KeyboardInterrupt:
        say("interrupted; everything is stopped, and the last round is not counted")
        interrupted = True
    text = report(results)
    say("", text, "")
    if options.write is not None:
        publish(options.write, text)
    whole = options.minutes is None and options.faults is None and options.round is None and not interrupted
    problems = list(_problems(seed, results, whole=whole))
    if problems:
        say(*problems, f"data and logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    return INTERRUPTED if interrupted else 0


async def _play(directory: Path, seed: int, only: int | None, goal: Goal, results: Results) -> None:
    """Play rounds that ``results`` does not have yet, or only one, until the goal is reached."""
    first = results.next_round(seed) if only is None else only
    tested = versions()
    words = ", ".join(f"{name} {found}" for name, found in tested.items())
    say(f"seed {seed}, from round {first}; {results.tally.total} faults so far; {words}")

    def audited(result: Result) -> bool:
        results.record(Session.of(seed, first, result, tested))
        return goal.is_reached(results.tally, result.seconds)

    await run(directory, seed, _rounds(seed, first, only), audited, say, Result())


def say(*lines: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="what decides everything but timing; a random one otherwise")
    parser.add_argument("--minutes", type=float, help=f"how long; until {ENOUGH} faults otherwise")
    parser.add_argument("--faults", type=int, help="until so many faults, over all seeds of the results file")
    parser.add_argument("--round", type=int, help="play only this round, from 1")
    parser.add_argument("--results", type=Path, help="a JSON file that keeps what was counted, over seeds and restarts")
    parser.add_argument("--write", type=Path, help="a file for the table, in Markdown")
    options = parser.parse_args()
    if options.round is not None and options.results is not None:
        parser.error("--round plays a round again: it counts for nothing, so it goes without --results")
    return options


def _rounds(seed: int, first: int, only: int | None) -> Iterable[tuple[int, Sequence[Fault]]]:
    rounds = zip(count(1), plan(seed), strict=False)
    return islice(rounds, first - 1, None if only is None else only)


def _problems(seed: int, results: Results, *, whole: bool) -> Iterable[str]:
    """What was not as promised; of a whole run also the places that it did not attack often enough."""
    if results.broken:
        last = results.next_round(seed) - 1
        yield from (f"BROKEN: {words}" for words in results.broken)
        yield f"again: python -m tests.faults --seed {seed} --round {last}"
    elif whole and (unreached := results.tally.unreached(DEATHS)):
        yield f"processes died less than {DEATHS} times at: {', '.join(unreached)}"


if __name__ == "__main__":
    sys.exit(main())
