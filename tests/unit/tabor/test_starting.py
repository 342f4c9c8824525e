"""What a start puts off is done later."""

from __future__ import annotations

import subprocess
import sys


def in_a_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_garbage_is_collected_again_when_the_start_is_over() -> None:
    states = in_a_process(
        "import gc; from tabor import starting; starting.begin(); print(gc.isenabled()); "
        "starting.end(); print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    assert states.split() == ["False", "True", "True"]


def test_the_end_of_no_start_changes_nothing() -> None:
    code = "import gc; from tabor import starting; starting.end(); print(gc.get_freeze_count())"
    assert in_a_process(code) == "0"


def test_a_server_that_runs_collects_garbage() -> None:
    code = (
        "import asyncio, gc\n"
        "from tabor import starting\n"
        "starting.begin()\n"
        "from tabor.doors.door import Door\n"
        "from tabor.serving import listen, serving\n"
        "from tabor.values import Address\n"
        "async def main():\n"
        "    with listen(Address('127.0.0.1', 0), Door()) as entrance:\n"
        "        async with serving(None, entrance):\n"
        "            print(gc.isenabled())\n"
        "asyncio.run(main())"
    )
    assert in_a_process(code) == "True"


def test_without_a_locked_door_nothing_is_loaded_for_one() -> None:
    code = "import sys, tabor.serving, tabor.run; print([m for m in ('yaml', 'bcrypt') if m in sys.modules])"
    assert in_a_process(code) == "[]"


def test_parameters_of_routes_are_still_checked() -> None:
    code = (
        "from tabor import starting\n"
        "starting.begin()\n"
        "from fastapi import FastAPI\n"
        "from fastapi.testclient import TestClient\n"
        "app = FastAPI()\n"
        "app.get('/')(lambda n: n)\n"
        "client = TestClient(app)\n"
        "print(client.get('/').status_code, client.get('/?n=1').status_code)"
    )
    assert in_a_process(code) == "422 200"
