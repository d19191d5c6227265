"""One fresh process of a comparison: ``python -m bench.stepping.worker REQUEST``.

REQUEST is a file with a JSON object: what is asked, which part this process has ("make",
"dense" or "sparse"), the folder of the networks, and its parent. Orders and answers are JSON
lines on standard input and output, as in ``bench.gating.worker``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDERS = ("make", "prepare", "turn", "end", "spent", "energy")


def main(request_path: str) -> int:
    """Do what the parent orders until it ends this process."""
    from bench.orphans import die_with

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**message: Any) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")

    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    die_with(request["parent"])
    serve = server(request, lambda what: tell(at=what))
    tell(answer={})
    for line in sys.stdin:
        tell(answer=serve(json.loads(line)))
    return 0


def server(request: dict[str, Any], at: Callable[[str], None]) -> Callable[[dict[str, Any]], Any]:
    """Return what answers orders; an exception becomes ``{"failed": [status, reason], ...}``."""
    from bench.attempt import status_of
    from bench.stepping.asked import Asked
    from bench.stepping.making import Failed, make
    from bench.stepping.measuring import Measured

    asked, folder = Asked(**request["asked"]), Path(request["folder"])
    part: Any = None

    def do(order: dict[str, Any]) -> Any:
        nonlocal part
        what = order.pop("do")
        if what not in ORDERS:
            raise ValueError(f"expected an order of {', '.join(ORDERS)}; got {what!r}")
        if what == "make":
            return make(asked, folder, at)
        if part is None:
            part = Measured(asked, folder, request["part"], at)
        return getattr(part, what)(**order)

    def serve(order: dict[str, Any]) -> Any:
        try:
            return do(order)
        except Failed as error:
            return {"failed": [str(error.status), error.reason], **error.facts}
        except Exception as error:
            status, reason = status_of(error)
            return {"failed": [str(status), reason]}

    return serve


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
