"""`python -m bench.record FILE`: takes remote write from a real Prometheus and keeps the requests as they come."""

from __future__ import annotations

import argparse
import struct
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import BinaryIO

_MAX_BODY_BYTES = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.record", description=__doc__)
    parser.add_argument("file", type=Path, help="where the recording goes (format: bench/requests.py)")
    parser.add_argument("--port", type=int, default=9090, help="remote_write url: http://127.0.0.1:PORT/write")
    arguments = parser.parse_args()
    with arguments.file.open("wb") as out:
        server = HTTPServer(("127.0.0.1", arguments.port), _handler(out))
        print(f"recording what comes to http://127.0.0.1:{arguments.port}/write; end with Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"{out.tell()} bytes in {arguments.file}")


def _handler(out: BinaryIO) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 < length <= _MAX_BODY_BYTES:
                self.send_error(413)
                return
            body = self.rfile.read(length)
            out.write(struct.pack("<dI", time.time(), length) + body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """One line a request would only be in the way."""

    return Handler


if __name__ == "__main__":
    main()
