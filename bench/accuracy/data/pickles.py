"""A pickle that holds numpy arrays and plain values, and nothing that could be called."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.accuracy.data.facts import DataError

RECONSTRUCT: Any = np.empty(0).__reduce__()[0]  # numpy's own _reconstruct, wherever it lives
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")


class RefusedError(pickle.UnpicklingError):
    """The pickle asked for something that is no array."""


def read_arrays(path: Path) -> Any:
    """Return what a pickle of arrays and plain values holds; Python 2's strings as bytes.

    A pickle can name any function and have it called. What this one may name are the parts of
    a numpy array; everything else is refused before it is imported.

    Raises:
        DataError: the pickle asks for anything else, is torn, or is no pickle.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except RefusedError as error:
            raise DataError(f"expected numpy arrays alone in {path}, got {error}") from None
        except Exception as error:  # torn bytes make any opcode fail, in its own way
            raise DataError(
                f"expected a whole pickle in {path}, got {type(error).__name__}: {error}"
            ) from error


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in MULTIARRAY:
            return RECONSTRUCT
        admitted: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _dtype(),
            ("_codecs", "encode"): _encoder(),
        }
        if (module, name) not in admitted:
            raise RefusedError(f"a request for {module}.{name}")
        return admitted[module, name]


# Made anew for each request: a pickle may set attributes of what it is given.


def _dtype() -> Callable[..., Any]:
    def dtype(what: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
        if not isinstance(what, str | bytes):
            raise RefusedError(f"a dtype of {type(what).__name__}")
        # Python 2 wrote numbers here; numpy 2.4 warns of some of them
        return np.dtype(what.decode() if isinstance(what, bytes) else what, bool(align), bool(copy))

    return dtype


def _encoder() -> Callable[..., bytes]:
    def encode(text: str, encoding: Any = None) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise RefusedError(f"a request for the codec {encoding!r}")
        return text.encode("latin1")

    return encode
