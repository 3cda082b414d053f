"""Who carries out runs of a study or a search: how many at a time, on which machines, together with whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from graftlab.errors import Argument, ConfigError, Place, unknown
from graftlab.workers.presence import BEAT_S

ENGINES = ("ray",)


@dataclass(frozen=True)
class Crew:
    """Who carries out runs."""

    workers: int | None = None
    """How many at a time: on this machine 1 unless given, on a cluster what has room there."""
    share: bool = False
    """Whether other processes carry out the same study."""
    on: str | None = None
    """An engine that has machines, `ray`; None for this one."""
    needs: Mapping[str, float] = field(default_factory=dict)
    """What one run takes of a cluster: CPU (1), GPU (0), or what its administrators have named."""
    beat_s: float = BEAT_S
    """Seconds between signs of life; a process of another machine is dead after six that do not come."""

    def __post_init__(self) -> None:
        if self.beat_s <= 0:
            place = Place(argument=Argument("heartbeat", self.beat_s))
            raise ConfigError(
                "a number of seconds above 0 is wanted.", place=place, given=self.beat_s
            )
        if self.on is not None and self.on not in ENGINES:
            place = Place(argument=Argument("on", self.on))
            raise ConfigError(unknown("engine", self.on, ENGINES), place=place, given=self.on)
        if self.on is not None and self.share:
            place = Place(argument=Argument("share", True))
            raise ConfigError("a cluster shares the runs out itself.", place=place)
        if self.needs and self.on is None:
            place = Place(argument=Argument("needs"))
            raise ConfigError("only a cluster reads it; give `on` too.", place=place)
