"""One fresh process of a gate: ``python -m bench.gating.worker REQUEST``.

It lies beside one side's ``hrbp_core`` (``bench.gating.sides``). REQUEST is a file with a JSON
object; orders come as JSON lines on standard input, answers go as JSON lines to standard output.
Exit code ``NO_API`` says that this side cannot even be loaded: it does not build, or lacks what
the suite calls.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NO_API = 9


def main(request_path: str) -> int:
    """Do what the parent orders until it says finish."""
    from bench.orphans import die_with

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**message: Any) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")

    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    die_with(request["parent"])
    try:
        import hrbp_core
        from bench import impls
        from bench.gating.process import Led

        for name in request["impls"]:
            impls.load(name)
        _check_place(hrbp_core.__file__, request["root"])
    except Exception as error:  # a SyntaxError, an ImportError, whatever a module does on import
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return NO_API
    tell(answer={})
    if request["cells"]:  # otherwise it was only asked whether it loads
        _serve(Led(request, lambda name: tell(at=name)), tell)
    return 0


def _serve(led: Any, tell: Any) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "prepare":
            tell(answer=led.prepare())
        elif order["do"] == "warm":
            tell(answer=led.warm())
        elif order["do"] == "turn":
            tell(answer=led.turn(order["cells"]))
        else:
            tell(answer=list(led.finish()))
            return


def _check_place(loaded: str | None, root: str) -> None:
    """An installed copy must not be measured in place of the revision."""
    if loaded is None or Path(root).resolve() not in Path(loaded).resolve().parents:
        raise ImportError(f"expected hrbp_core of {root}, got {loaded}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
