"""The kinds of fault: each is a function that begins it, yields, and ends it.

One that finds nothing to hit raises `Missed` before it yields.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from campaign import clock
from campaign.world import Missed, Spot, Switch, World
from faults import FaultyProxy

from autolog.journal import layout, progress
from autolog.journal.reader import Reader

if TYPE_CHECKING:
    from campaign.schedule import Fault

_SLOW = 0.3
_HOURS = (-5, -1, 1, 100)
_FILLER = "filler"
_PATIENCE = 300.0
"""Seconds that a server has to start."""

_NETWORK: dict[str, Callable[[int], Switch]] = {
    "refuse": lambda _: FaultyProxy.refuse,
    "cut": lambda _: FaultyProxy.cut,
    "stall": lambda _: FaultyProxy.black_hole,
    "reset": lambda _: FaultyProxy.reset,
    "slow": lambda _: lambda proxy: proxy.slow(_SLOW),
    "lose replies": lambda _: FaultyProxy.lose_reply,
    "401": lambda _: lambda proxy: proxy.status(401),
    "403": lambda _: lambda proxy: proxy.status(403),
    "404": lambda choice: _not_found(in_words=choice % 2 == 0),
    "413": lambda choice: lambda proxy: proxy.status(413, path=("", "log-batch")[choice % 2]),
    "429": lambda choice: lambda proxy: proxy.status(429, retry_after=(None, 1)[choice % 2]),
    "500": lambda _: lambda proxy: proxy.status(500),
    "503": lambda _: lambda proxy: proxy.status(503),
    "page": lambda _: FaultyProxy.html,
    "half JSON": lambda _: lambda proxy: proxy.garble(b'{"run": {"info": {"run_id": "'),
    "empty": lambda _: lambda proxy: proxy.garble(b""),
}


def befall(world: World, fault: Fault) -> Iterator[None]:
    """Begin a fault with the first ``next``, end it with the second."""
    if fault.kind in _NETWORK:
        with world.network(_NETWORK[fault.kind](fault.choice)):
            world.note(f"the network: {fault.kind}, for {fault.lasts} s")
            yield
        world.note(f"the network: {fault.kind} is over")
    else:
        yield from _OTHERS[fault.kind](world, fault)


def _not_found(*, in_words: bool) -> Switch:
    """In MLflow's own words, or as the page of somebody else."""
    return (lambda proxy: proxy.status(404)) if in_words else lambda proxy: proxy.html(404)


def _kill_host(world: World, _: Fault) -> Iterator[None]:
    world.signal_host(signal.SIGKILL)
    yield


def _terminate_host(world: World, _: Fault) -> Iterator[None]:
    world.signal_host(signal.SIGTERM)
    yield


def _kill_shipper(world: World, _: Fault) -> Iterator[None]:
    world.signal_shipper(signal.SIGKILL)
    yield


def _kill_both(world: World, _: Fault) -> Iterator[None]:
    world.signal_shipper(signal.SIGKILL)
    world.signal_host(signal.SIGKILL)
    yield


def _pause_host(world: World, _: Fault) -> Iterator[None]:
    world.signal_host(signal.SIGSTOP)
    yield
    world.signal_host(signal.SIGCONT)


def _pause_shipper(world: World, _: Fault) -> Iterator[None]:
    world.signal_shipper(signal.SIGSTOP)
    yield
    world.signal_shipper(signal.SIGCONT)


def _kill_server(world: World, _: Fault) -> Iterator[None]:
    world.server.kill()
    world.note("SIGKILL to the server")
    yield
    world.server.start(_PATIENCE)
    world.note("the server is there again")


def _expire_credential(world: World, _: Fault) -> Iterator[None]:
    world.credential.expire()
    world.note(f"the {type(world.credential).__name__.lower()} expires")
    yield
    world.credential.renew()
    world.note("the user has another one")


def _fill_disk(world: World, _: Fault) -> Iterator[None]:
    filler = world.home / _FILLER
    if not world.home.is_mount():
        raise Missed("mounting is not permitted here")
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        world.note("the disk is full")
    yield
    filler.unlink()
    world.note("the disk has room again")


def _damage(world: World, fault: Fault) -> Iterator[None]:
    journals = world.journals()
    if not journals:
        raise Missed("there is no journal")
    spot = _spot(Reader(journals[fault.choice % len(journals)]), fault.choice)
    try:
        with (spot.journal / layout.segment_name(spot.segment)).open("r+b") as file:
            file.seek(spot.offset)
            (byte,) = file.read(1)
            file.seek(spot.offset)
            file.write(bytes([byte ^ 1 << fault.choice % 8]))
    except (OSError, ValueError):
        raise Missed("the segment is gone") from None
    world.damaged.append(spot)
    world.note(f"a bit is flipped at byte {spot.offset} of segment {spot.segment}")
    yield


def _spot(reader: Reader, choice: int) -> Spot:
    """A place between what is sent and what is written, where there is one."""
    first, start = layout.split(progress.load(reader.folder).cursor)
    last, end = layout.split(reader.control().tail or 0)
    segment = first + choice % (last - first + 1)
    low = start if segment == first else layout.START
    path = reader.folder / layout.segment_name(segment)
    high = end if segment == last else path.stat().st_size if path.exists() else 0
    if high <= low:
        raise Missed("all is sent")
    return Spot(reader.folder, segment, low + choice % (high - low))


def _damage_the_dead(world: World, fault: Fault) -> Iterator[None]:
    yield from _kill_both(world, fault)
    yield from _damage(world, fault)


def _shift_clock(world: World, fault: Fault) -> Iterator[None]:
    hours = _HOURS[fault.choice % len(_HOURS)]
    clock.move(world.clock, 3600 * hours)
    world.note(f"the training's clock is {hours} hours ahead")
    yield
    clock.move(world.clock, 0)
    world.note("the training's clock goes right")


def _fork(world: World, fault: Fault) -> Iterator[None]:
    """The training forks by itself; every other time its child is killed."""
    if fault.choice % 2:
        world.signal_child(signal.SIGKILL)
    yield


_OTHERS: dict[str, Callable[[World, Fault], Iterator[None]]] = {
    "kill host": _kill_host,
    "terminate host": _terminate_host,
    "kill shipper": _kill_shipper,
    "kill both": _kill_both,
    "pause host": _pause_host,
    "pause shipper": _pause_shipper,
    "kill server": _kill_server,
    "expire credential": _expire_credential,
    "fill disk": _fill_disk,
    "damage": _damage,
    "damage the dead": _damage_the_dead,
    "shift clock": _shift_clock,
    "fork": _fork,
}
