"""The orders that a run draws from: model, sandbox script, and what the customer does meanwhile.

Which misbehaviour is fair depends on the connection (``pace.py``). A connection whose look-up proves absence must list
every record within ``visibility_delay`` and on every replica; how the record looks there is free. A record that stays
unowned and shows no prompt, an unusable id or another clock leaves every later look-up on its account in doubt. There
are none of these on ``sandbox``, where absence must be provable throughout a run, nor on ``sandbox-plain``, which has
the same account.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.failpoints import Failpoint

Body = Mapping[str, Any]

SANDBOX: Body = {"model": "sandbox/video"}
HOSTED: Body = {"model": "plain/video"}  # its list proves nothing
VLLM: Body = {"model": "vllm/video"}
SGLANG: Body = {"model": "sglang/video"}
NEWAPI: Body = {"model": "newapi/video"}
RUNWAY: Body = {"model": "runway/gen4.5", "seconds": 2, "size": "1280x720"}
KLING: Body = {"model": "kling/kling-2.6", "seconds": 5, "size": "1280x720"}
SELF_HOSTED = VLLM, SGLANG
LISTING = SANDBOX, HOSTED, VLLM, SGLANG
VIDEOS = *LISTING, NEWAPI
EVERYWHERE = *VIDEOS, RUNWAY, KLING
#: Models whose orders may differ in the seed alone.
SEEDED = frozenset(body["model"] for body in (VLLM, SGLANG, NEWAPI))
#: The API's minimum, for orders that are to end by their deadline, and enough time for those that may need it.
SOON = {"deadline_seconds": 10}
IN_TIME = {"deadline_seconds": 15}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of order.

    ``script`` is for the sandbox. The customer cancels after ``cancel_in`` seconds; ``under_way``: these seconds begin
    when the provider is rendering. ``picture`` is how the video's first frame is given, if it is.
    """

    script: str = ""
    body: Body = field(default_factory=lambda: SANDBOX)
    cancel_in: float | None = None
    under_way: bool = False
    webhook: bool = False
    picture: str | None = None

    @property
    def takes_seed(self) -> bool:
        return self.body["model"] in SEEDED and "fallbacks" not in self.body

    @property
    def tail(self) -> str:
        """What the prompt must end with for the script to make a difference."""
        if "[list:trim]" in self.script:
            return "  "
        return " and so on" * 12 if "[list:cut]" in self.script else ""


def _cross(scripts: Iterable[str], bodies: Iterable[Body], **extra: Any) -> tuple[Recipe, ...]:
    """Every script with every body."""
    return tuple(Recipe(script, {**body, **extra}) for script in scripts for body in bodies)


def _lost(scripts: Iterable[str], bodies: Iterable[Body]) -> tuple[Recipe, ...]:
    """The same; the reply to the create is lost as well, so that the record must be looked up."""
    return _cross((f"[lose-reply] {script}" for script in scripts), bodies)


ORDINARY = (
    *(Recipe(), Recipe("[slow:0.3]"), Recipe("[slow:0.6]"), Recipe(body=RUNWAY), Recipe("[slow:0.3]", KLING)),
    *_cross(("", "[slow:0.3]"), (HOSTED, VLLM, SGLANG, NEWAPI)),
)
LOST = (
    *(Recipe("[lose-reply]"), Recipe("[lose-reply:truncate]"), Recipe("[html]"), Recipe("[lose-reply]", KLING)),
    *_cross(("[lose-reply]", "[lose-reply:truncate]", "[html]"), (HOSTED, VLLM, SGLANG, NEWAPI)),
)
#: A record that looks different in the list, comes late into it or moves in it, or has an id that is hard to keep.
MISLISTED = (
    *_lost((f"[list:{how}]" for how in ("rename", "round", "decimal", "unsized", "rotate", "double", "last")), LISTING),
    *_lost(("[list:trim]", "[list:cut]"), (SANDBOX, HOSTED, VLLM)),
    *_lost(("[list:omit]", "[behind:2]", "[ahead:2]"), (VLLM,)),
    *_lost(("[behind:2]", "[ahead:2]"), (SGLANG,)),
    *_lost(("[unlisted:1]",), (SANDBOX, VLLM, SGLANG, KLING)),
    *_lost(("[unlisted:4]", "[unlisted:9]", "[replicas:2]"), (HOSTED,)),
    *_lost(("[id:long]", "[echo]", "[elsewhere:2]"), EVERYWHERE),
    *_lost(("[id:odd]",), (KLING, RUNWAY, NEWAPI)),
)
#: Jobs that are made from a picture: fetched, or in the request; sent in the body, or by URL.
PREPARED = tuple(
    Recipe(script, body, picture=source)
    for body in (SANDBOX, VLLM, RUNWAY, KLING)
    for source in ("url", "data_url")
    for script in ("", "[lose-reply]")
)
CANCELED = (Recipe("[slow:3]", RUNWAY, cancel_in=0.5), Recipe("[slow:3]", RUNWAY, cancel_in=0.1))
STOPPED = (Recipe("[slow:5]", RUNWAY, cancel_in=0.0, under_way=True),)
ABANDONED = (Recipe("[gone:25]"), Recipe("[gone:9]"), Recipe("[gone:9]", RUNWAY), Recipe("[lose-reply]", RUNWAY))
TOLD = (Recipe(webhook=True), Recipe(body=RUNWAY, webhook=True))
ODDITIES = (
    *(Recipe(f"[{script}]") for script in ("500", "429", "flaky:3", "gone:2", "odd-status:2", "late:0.5", "garbage")),
    *(Recipe(f"[fail:{why}]") for why in ("moderation", "output", "internal", "prompt")),
    *(Recipe(f"[callback:{how}] [slow:0.3]", KLING) for how in ("forged", "twice", "early")),
    *(Recipe(f"[{script}]", RUNWAY) for script in ("lose-reply", "flaky:2", "truncated", "expired", "fail:internal")),
    Recipe("[slow:1] [no-cancel]", RUNWAY, cancel_in=0.4),
    Recipe("[slow:0.5]", cancel_in=0.0),
    *CANCELED,
    *(Recipe("[slow:3]", body, cancel_in=seconds) for body in SELF_HOSTED for seconds in (0.1, 0.5)),
)
#: A create whose reply says something else than what was done, or says it in another server's words.
MISANSWERED = (
    *_cross(("[refuse:timeout]",), EVERYWHERE),
    *_cross(
        (f"[refuse:{how}]" for how in ("flat", "object", "zod", "text")), (SANDBOX, HOSTED, VLLM, NEWAPI), **IN_TIME
    ),
    *_cross(("[echo:refuse]",), EVERYWHERE, **IN_TIME),
    *_cross(("[echo]", "[echo] [fail:internal]", "[echo] [fail:moderation]"), EVERYWHERE),
    *_cross(("[id:long]",), EVERYWHERE),
    *_cross(("[id:odd]",), (KLING, RUNWAY, NEWAPI)),
    *_cross(("[500]", "[429]"), (HOSTED, VLLM, SGLANG, NEWAPI), **IN_TIME),
)
#: An accepted job that is lost, found on one replica only, or ends in another server's words.
MISTOLD = (
    *_cross(("[elsewhere:2]",), EVERYWHERE),
    *_cross(("[replicas:2]", "[replicas:2] [slow:0.5]"), (HOSTED, NEWAPI, RUNWAY)),
    *_cross(("[forget]", "[forget] [slow:1]"), VIDEOS, **IN_TIME),
    *_cross((f"[final:{word}]" for word in ("succeeded", "done", "error", "aborted")), VIDEOS, **IN_TIME),
    *_cross(("[gone:9]",), SELF_HOSTED),
    *_cross(("[never]",), VIDEOS, **SOON),
)
#: Orders that have a second model, or too little time.
PRESSED = (
    *_cross(("[api-servers]", "[api-servers] [slow:0.3]"), (VLLM,), fallbacks=["plain/video"]),
    *_cross(("[forget]", "[fail:internal]", "[lose-reply]"), (VLLM,), fallbacks=["sglang/video"]),
    *_cross(("[lose-reply] [unlisted:9]", "[429:3] [lose-reply]", "[500] [lose-reply]"), (HOSTED,), **SOON),
    *_cross(("[429:3] [lose-reply]", "[lose-reply] [slow:8]"), (SANDBOX, VLLM), **SOON),
)
#: What else is ordered beside the orders of a fault: a group is drawn first, then one of its recipes.
SPICE = (PREPARED, ODDITIES, LOST, MISLISTED, MISANSWERED, MISTOLD, PRESSED, ABANDONED)
#: What makes a process come through a checkpoint; ORDINARY where nothing is named.
LEADS_TO = {
    Failpoint.PREPARE_CLAIMED: PREPARED,
    Failpoint.PREPARE_FETCHED: PREPARED,
    Failpoint.PREPARE_CONVERTED: PREPARED,
    Failpoint.PREPARE_RECORDED: PREPARED,
    Failpoint.CANCEL_WRITTEN: CANCELED,
    Failpoint.CANCEL_COMMITTED: CANCELED,
    Failpoint.UPSTREAM_CANCELED: STOPPED,
    Failpoint.CONFIRM_CLAIMED: (*LOST, *LOST, *MISLISTED),
    Failpoint.CONFIRM_ANSWERED: (*LOST, *LOST, *MISLISTED),
    Failpoint.WATCH_CLAIMED: ABANDONED,
    Failpoint.WATCH_ANSWERED: ABANDONED,
    Failpoint.DELIVER_CLAIMED: TOLD,
    Failpoint.DELIVER_SENT: TOLD,
    Failpoint.DELIVER_RECORDED: TOLD,
}
