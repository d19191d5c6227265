"""Reading a store: everything broken is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.store import Store, StoreError, read_results
from tests.store_samples import (
    NAME,
    fill,
    measurement,
)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"expected a folder of results at .*nowhere, got nothing"):
        read_results(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"expected a folder of results at .*file, got a file"):
        read_results(tmp_path / "file")
    with pytest.raises(StoreError, match="expected a folder at"), Store(tmp_path / "file"):
        pass


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"expected results\.jsonl in .*, got none"):
        read_results(tmp_path)


@pytest.mark.parametrize(("content", "got"), [(b"", "an empty file"), (b'{"s', "only a torn line")])
def test_results_without_a_line_are_an_error(tmp_path: Path, content: bytes, got: str) -> None:
    (tmp_path / "results.jsonl").write_bytes(content)
    with pytest.raises(StoreError, match=f"expected at least one whole line in .*, got {got}"):
        read_results(tmp_path)
    with Store(tmp_path) as store:  # but a run may start there
        assert store.done(NAME) == set()


def test_results_that_cannot_be_opened_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(StoreError, match="expected a readable file"):
        read_results(tmp_path)


def rewrite(folder: Path, number: int, **changes: Any) -> None:
    """Change fields of line ``number`` (from 1)."""
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes})
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_another_schema_is_named_with_its_line(tmp_path: Path, number: int) -> None:
    fill(tmp_path, 3)
    rewrite(tmp_path, number, schema=7)
    with pytest.raises(StoreError, match=f"line {number}: expected schema 1, got 7"):
        read_results(tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_line_that_contradicts_itself_is_named(tmp_path: Path, number: int) -> None:
    fill(tmp_path, 3)
    rewrite(tmp_path, number, reason="although ok")
    with pytest.raises(StoreError, match=f"line {number}: expected a measurement of schema 1"):
        read_results(tmp_path)


@pytest.mark.parametrize("broken", [b"{half", b"", b"\xff\xfe", b"[1, 2]", b"3"])
def test_a_broken_line_before_the_last_is_an_error(tmp_path: Path, broken: bytes) -> None:
    first, second = fill(tmp_path, 2).splitlines()
    (tmp_path / "results.jsonl").write_bytes(b"\n".join([first, broken, second, b""]))
    with pytest.raises(StoreError, match="line 2: expected a JSON object, got"):
        read_results(tmp_path)
    with pytest.raises(StoreError, match="line 2: expected a JSON object, got"), Store(tmp_path):
        pass


def test_an_unknown_environment_is_named_with_its_line(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    rewrite(tmp_path, 2, environment="feedfeedfeedfeed")
    with pytest.raises(StoreError, match=r"line 2: expected an environment .*'feedfeedfeedfeed'"):
        read_results(tmp_path)


def test_missing_environments_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (tmp_path / "environment.json").unlink()
    with pytest.raises(StoreError, match=r"line 1: expected an environment of environment\.json"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "as one JSON object"),
        ("[]", "to map environment ids to facts"),
        ('{"a": 1}', "to map environment ids to facts"),
        ('{"a": {}}', "expected facts of id"),
    ],
)
def test_broken_environments_are_an_error(tmp_path: Path, content: str, message: str) -> None:
    fill(tmp_path, 1)
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        read_results(tmp_path)


def test_changed_facts_of_an_environment_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    path = tmp_path / "environment.json"
    path.write_text(path.read_text().replace("a processor", "another"))
    with pytest.raises(StoreError, match=f"got id '{NAME}'"):
        read_results(tmp_path)


def test_a_cell_stored_twice_is_an_error(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    (tmp_path / "results.jsonl").write_bytes(whole + whole.splitlines(keepends=True)[0])
    cell_id = measurement(0).cell.cell_id
    with pytest.raises(StoreError, match=f"line 3: .* got {cell_id} of line 1 again"):
        read_results(tmp_path)
