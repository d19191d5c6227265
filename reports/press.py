"""The PDF is set in a second process while this one draws the figures.

The process gets the sections on its standard input and answers with the PDF; nothing else passes
between the two.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType

from reports import style
from reports.content import Section
from reports.document import write_pdf
from reports.picture import Picture

# A process takes 2 s to start, and a picture 0.9 to set.
LEAST_PICTURES = 5
ROOT = Path(__file__).parents[1]


class Press:
    """Sets one PDF: in a second process where that pays, else here, by :meth:`write`.

    On two cores that share much, a report of 10,000 cells took 32 s instead of 40.
    """

    def __init__(self) -> None:
        self.child: Popen[bytes] | None = None
        self.sections: Sequence[Section] = ()

    def start(self) -> None:
        """Start the process, before there is something to set; with one core do nothing."""
        if self.child is not None or _cores() < 2:
            return
        known = os.environ.get("PYTHONPATH")
        places = os.pathsep.join([str(ROOT), *filter(None, [known])])
        self.child = Popen(
            [sys.executable, "-c", "from reports.press import serve; serve()"],
            stdin=PIPE, stdout=PIPE, stderr=PIPE, env=os.environ | {"PYTHONPATH": places},
        )  # fmt: skip

    def take(self, sections: Sequence[Section]) -> None:
        """Begin to set these."""
        self.sections = sections
        pictures = sum(isinstance(block, Picture) for s in sections for block in s.blocks)
        if pictures >= LEAST_PICTURES:
            self.start()
        if self.child is not None and self.child.stdin is not None:
            with suppress(BrokenPipeError):  # it ended; write() tells what it said
                pickle.dump(list(sections), self.child.stdin)
                self.child.stdin.flush()

    def write(self, path: Path) -> None:
        """Write the PDF.

        Raises:
            RuntimeError: the second process failed; with what it said.
        """
        if self.child is None:
            write_pdf(path, self.sections)
            return
        pdf, said = self.child.communicate()
        if self.child.returncode != 0:
            raise RuntimeError(f"expected a PDF, got: {said.decode(errors='replace').strip()}")
        path.write_bytes(pdf)

    def __enter__(self) -> Press:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.child is None:
            return
        if self.child.poll() is None:
            self.child.kill()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            with suppress(BrokenPipeError):  # what it was to get and never read
                if pipe is not None:
                    pipe.close()
        self.child.wait()


def _cores() -> int:
    """Return how many cores this process may run on."""
    with suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve() -> None:
    """Read sections from standard input, write their PDF to standard output."""
    sections = pickle.load(sys.stdin.buffer)
    target = io.BytesIO()
    with style.look():
        write_pdf(target, sections)
    sys.stdout.buffer.write(target.getvalue())
