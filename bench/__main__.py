"""``python -m bench``. Whatever nobody foresaw ends with 2: to the gate, 1 is a regression."""

import sys
import traceback

USAGE = 2


def _loaded_and_run() -> None:
    try:
        from bench.cli import main
    except (ImportError, SyntaxError) as error:
        print(
            f"error: this checkout's code does not load: {type(error).__name__}: {error}",
            file=sys.stderr,
        )
        sys.exit(USAGE)
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(USAGE)


if __name__ == "__main__":
    _loaded_and_run()
