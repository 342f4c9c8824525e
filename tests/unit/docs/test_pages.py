"""What the test of the docs' commands takes for a block, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PageError, blocks_of, pages
from tests.docs.world import Failed, World


def blocks(text: str) -> list:  # type: ignore[type-arg]
    return blocks_of("page.md", text)


def test_notes_belong_to_the_block_below_them() -> None:
    text = "# x\n\n<!-- before: a\nb -->\n<!-- fails: no token -->\n\n```sh\nc\n```\n\n<!-- x -->\n```sh\nd\n```\n"
    first, second = blocks(text)
    assert (first.before, first.fails, first.text, first.where) == ("a\nb", "no token", "c\n", "page.md:7")
    assert (second.before, second.fails, second.text) == ("", "", "d\n")


def test_a_block_within_a_list_is_run_without_its_indentation() -> None:
    (block,) = blocks("1. do\n\n    ```sh\n    for x in 1 2; do\n        echo $x\n    done\n    ```\n")
    assert block.text == "for x in 1 2; do\n    echo $x\ndone\n"
    assert block.runs


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("text:\n\n    tabor cluster status --log x\n", "between ```sh"),
        ("text:\n\n    A=b .venv/bin/python -m x\n", "between ```sh"),
        ("```\nmake run\n```\n", "has the language sh"),
        ("```bash\nls\n```\n", "has the language sh"),
        ("```sh\n$ ls\n```\n", "prompt"),
        ("<!-- not run: needs Docker -->\ntext\n\n```sh\nls\n```\n", "not directly before a block"),
        ("<!-- not run: needs Docker -->\n", "before no block"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "says nothing"),
    ],
)
def test_a_command_that_no_test_would_see_is_refused(text: str, hint: str) -> None:
    with pytest.raises(PageError, match=hint):
        blocks(text)


def test_what_is_no_command_is_left_alone() -> None:
    assert not blocks(
        "text:\n\n    samples/s × retention\n\n- a list\n  that goes on\n    make of it what you like\n"
    )
    assert not blocks("```json\n{}\n```\n")[0].runs


def test_all_pages_are_found_but_decisions() -> None:
    found = pages()
    assert "README.md" in found
    assert "docs/format/read-api.md" in found
    assert not any("decisions" in page for page in found)


def world(folder: Path) -> World:
    return World(folder / "world", lambda: "127.0.0.1:4444")


def test_addresses_brokers_and_paths_are_those_of_the_test(tmp_path: Path) -> None:
    here = world(tmp_path)
    text = here.substitute(
        "tabor run --listen 10.0.0.1:9080 --log kafka://k1:9092,k2:9092/m?a=b --data-dir /var/lib/tabor"
    )
    assert "10.0.0.1" not in text
    assert f"--data-dir {tmp_path}/world/var/lib/tabor" in text
    assert "kafka://127.0.0.1:4444/m-" in text
    assert "?a=b" in text
    assert here.substitute(text) == text
    same = {here.substitute(f"{host}:9080") for host in ("127.0.0.1", "localhost", "0.0.0.0")}
    assert len(same) == 1
    assert here.substitute("10.0.0.1:9080") not in same
    assert here.substitute("127.0.0.1:9092") == "127.0.0.1:4444"
    assert here.substitute("http://127.0.0.1:9080/var/lib/x").endswith("/var/lib/x")


def test_variables_and_folders_last_from_block_to_block_and_errors_end_a_block(tmp_path: Path) -> None:
    texts = "mkdir a && cd a\nx=$(echo 1)", "test $x = 1 && test ${PWD##*/} = a", "false\ntrue"
    first, second, third = blocks("".join(f"```sh\n{text}\n```\n" for text in texts))
    with world(tmp_path) as here:
        here.run(first)
        here.run(second)
        with pytest.raises(Failed, match=r"page.md:8: ended with 1"):
            here.run(third)


def test_a_block_that_should_fail_has_to(tmp_path: Path) -> None:
    fails, does_not = blocks(
        "<!-- fails: as it should -->\n```sh\nfalse\n```\n<!-- fails: or so it is said -->\n```sh\ntrue\n```\n"
    )
    with world(tmp_path) as here:
        here.run(fails)
        with pytest.raises(Failed, match="should fail: or so it is said"):
            here.run(does_not)


def test_a_block_has_to_print_what_is_said_of_it(tmp_path: Path) -> None:
    says, does_not = blocks(
        "<!-- prints: b c -->\n```sh\necho a b c\n```\n<!-- prints: d -->\n```sh\necho a\n```\n"
    )
    with world(tmp_path) as here:
        here.run(says)
        with pytest.raises(Failed, match="did not print 'd', but\na"):
            here.run(does_not)


def test_a_block_may_be_a_file_that_commands_use(tmp_path: Path) -> None:
    file, command = blocks(
        "<!-- file: /etc/tabor/x.toml -->\n```toml\na = '/var/lib/x'\n```\n"
        "```sh\ngrep world/var/lib/x /etc/tabor/x.toml\n```\n"
    )
    with world(tmp_path) as here:
        here.run(file)
        here.run(command)
