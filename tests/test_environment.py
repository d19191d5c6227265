"""Where a result came from: the commit of a checkout, or of a copy of one."""

from __future__ import annotations

import pytest

from bench import environment


@pytest.mark.parametrize(("said", "found"), [("abc", "abc"), ("", None), (None, None)])
def test_a_copy_of_the_files_is_told_its_commit(
    said: str | None, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_git(*args: object, **options: object) -> None:
        raise OSError("no git here")

    monkeypatch.setattr(environment.subprocess, "run", no_git)
    monkeypatch.delenv("HRBP_COMMIT", raising=False)
    if said is not None:
        monkeypatch.setenv("HRBP_COMMIT", said)
    assert environment.environment("cpu").commit == found


def test_what_is_said_of_the_commit_goes_before_an_older_git_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy on another machine may hold new files over an old commit."""
    monkeypatch.setenv("HRBP_COMMIT", "abc")
    found = environment.environment("cpu")
    assert (found.commit, found.dirty) == ("abc", None)
