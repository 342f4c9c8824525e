"""A proxy that passes everything on, later."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def delaying(listen: tuple[str, int], to: tuple[str, int], delay_s: float) -> Iterator[None]:
    """Pass on what comes to one address to another and back, each byte `delay_s` later."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(lambda *streams: _serve(streams, to, delay_s), *listen)

    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], to: tuple[str, int], delay_s: float
) -> None:
    reader, writer = streams
    try:
        far_reader, far_writer = await asyncio.open_connection(*to)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pass_on(reader, far_writer, delay_s), _pass_on(far_reader, writer, delay_s))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            loop.call_later(delay_s, writer.write, data)
    loop.call_later(delay_s + 0.01, writer.close)
