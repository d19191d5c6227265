from __future__ import annotations

import pytest

from reports import style


def test_wrapped_lines_fit_and_lose_nothing():
    text = "a word " * 9 + "x" * 300 + " some_long.name/with-joints" * 3
    lines = style.wrap(text, 120, 8)
    assert max(style.width_pt(line, 8) for line in lines) <= 120
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.0, "12 s"), (0.99996, "1 s"), (0.9994, "999 ms"), (9.9996e-4, "1 ms"), (2.5e-6, "2.5 µs")],
)
def test_durations_have_three_digits_of_the_right_unit(seconds, text):
    assert style.duration(seconds) == text
