"""GET /debug/profile?seconds=10: where the threads of this process spend their time, as a flame graph.

A thread looks at the frames of all others a hundred times a second (`sys._current_frames`), which costs about one
hundredth of a core, needs no debugger's rights, and sees every thread; what runs inside of a kernel or of RocksDB
shows as the Python function that called it. Threads that wait are left out, unless `idle=true`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from html import escape
from types import FrameType

from fastapi import FastAPI, Request, Response

MAX_SECONDS = 60.0
_EVERY_S = 0.01
_MAX_DEPTH = 200
_WAITS = frozenset(
    {
        "queue.py:get",
        "runners.py:run",
        "selectors.py:select",
        "socket.py:readinto",
        "ssl.py:read",
        "thread.py:_worker",
        "threading.py:_wait_for_tstate_lock",
        "threading.py:join",
        "threading.py:wait",
    }
)
"""Functions in which a thread that has nothing to do is found."""

Stack = tuple[str, ...]
Stacks = Mapping[Stack, int]


def add_route(app: FastAPI) -> None:
    """The route, for administrators."""
    busy = threading.Lock()

    @app.get("/debug/profile")
    async def profile(request: Request) -> Response:
        from query.clients import until_gone

        try:
            seconds = float(request.query_params.get("seconds", "10"))
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= MAX_SECONDS:
            return Response(
                f"seconds is a number above 0, at most {MAX_SECONDS:g}\n", 400, media_type="text/plain"
            )
        form = request.query_params.get("format") or (
            "collapsed" if request.headers.get("accept", "").startswith("text/plain") else "svg"
        )
        if form not in ("svg", "collapsed"):
            return Response("format is 'svg' or 'collapsed'\n", 400, media_type="text/plain")
        if not busy.acquire(blocking=False):
            headers = {"Retry-After": str(round(MAX_SECONDS))}
            return Response("a profile is being made already\n", 429, headers, "text/plain")
        stop = threading.Event()
        idle = request.query_params.get("idle") == "true"
        try:
            work = asyncio.ensure_future(asyncio.to_thread(sampled, seconds, stop, idle=idle))
            gone = asyncio.ensure_future(until_gone(request))
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            stacks = await work
            gone.cancel()
        finally:
            busy.release()
        if form == "collapsed":
            return Response(collapsed(stacks), media_type="text/plain")
        return Response(await asyncio.to_thread(flame_graph, stacks, seconds), media_type="image/svg+xml")


def sampled(seconds: float, stop: threading.Event, *, idle: bool = False) -> Stacks:
    """How often each stack of any thread but this one was seen, outermost frame first."""
    stacks: Counter[Stack] = Counter()
    me, end_s = threading.get_ident(), time.monotonic() + seconds
    while time.monotonic() < end_s and not stop.wait(_EVERY_S):
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != me and (idle or _where(frame) not in _WAITS):
                stacks[(names.get(ident, "thread"), *_stack(frame))] += 1
    return stacks


def _stack(frame: FrameType | None) -> Stack:
    found: list[str] = []
    while frame is not None and len(found) < _MAX_DEPTH:
        found.append(f"{_module(frame)}:{frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(reversed(found))


def _where(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_name}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def collapsed(stacks: Stacks) -> str:
    """One line a stack, frames separated by semicolons, and how often: what flamegraph.pl and speedscope read."""
    return "".join(f"{';'.join(stack)} {n}\n" for stack, n in sorted(stacks.items()))


_WIDTH, _ROW, _CHARACTER = 1400, 17, 7.0


def flame_graph(stacks: Stacks, seconds: float) -> str:
    """An SVG that needs nothing else: one box a frame, as wide as it was seen often; its title says all of it."""
    total = sum(stacks.values())
    boxes: list[str] = []
    depth = _boxes(stacks, 0, 0.0, _WIDTH / max(total, 1), total, boxes)
    height = (depth + 2) * _ROW
    text = f"{total} samples of running threads in {seconds:g} s, a hundred a second and thread"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="monospace" '
        f'font-size="11"><text x="4" y="12">{text}</text>{"".join(boxes)}</svg>\n'
    )


def _boxes(stacks: Stacks, level: int, x: float, scale: float, total: int, out: list[str]) -> int:
    """Draw what stands at a level and all below it; returns how many levels there are."""
    groups: dict[str, dict[Stack, int]] = {}
    for stack, n in stacks.items():
        if len(stack) > level:
            groups.setdefault(stack[level], {})[stack] = n
    deepest = level
    for name, below in sorted(groups.items()):
        n = sum(below.values())
        width = n * scale
        if width >= 1:
            y, label = (level + 1) * _ROW, escape(name, quote=True)
            shown = escape(name[: int(width / _CHARACTER)]) if width > 4 * _CHARACTER else ""
            hue = sum(name.partition(":")[0].encode()) * 37 % 360
            out.append(
                f'<g><title>{label}: {n} samples, {100 * n / total:.1f} %</title><rect x="{x:.1f}" y="{y}" '
                f'width="{width:.1f}" height="{_ROW - 1}" fill="hsl({hue} 60% 75%)"/><text x="{x + 2:.1f}" '
                f'y="{y + 12}">{shown}</text></g>'
            )
            deepest = max(deepest, _boxes(below, level + 1, x, scale, total, out))
        x += width
    return deepest
