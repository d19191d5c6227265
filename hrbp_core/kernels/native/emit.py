"""Small words for writing LLVM IR: loops, vectors, slots of a launch, conversions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F16 = ir.FloatType(), ir.HalfType()
NUMBERS = {"float32": F32, "float16": F16, "bfloat16": I16}  # bfloat16 is handled as its bits
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def i64(value: int) -> ir.Constant:
    """Return a 64-bit constant."""
    return ir.Constant(I64, value)


def new_function(name: str) -> tuple[ir.Module, Any, ir.IRBuilder]:
    """Return a module of one function of a 64-bit integer, its argument, and a builder in it."""
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), name)
    return module, function.args[0], ir.IRBuilder(function.append_basic_block("entry"))


def chunk_of(block: int, lanes: int) -> int:
    """Return the channels of a tile: two vectors where the block allows."""
    return lanes * (2 if block % (2 * lanes) == 0 else 1)


class Slots:
    """The launch's arguments: one array of 64-bit integers, read by name."""

    def __init__(self, builder: ir.IRBuilder, base: Any, names: tuple[str, ...]) -> None:
        self._read = {
            name: builder.load(pointer(builder, base, i64(8 * i), I64))
            for i, name in enumerate(names)
        }

    def __getattr__(self, name: str) -> Any:
        return self._read[name]


def pointer(b: ir.IRBuilder, base: Any, offset_bytes: Any, kind: Any) -> Any:
    """Return a typed pointer to an integer address plus bytes."""
    return b.inttoptr(b.add(base, offset_bytes), kind.as_pointer())


def read(b: ir.IRBuilder, base: Any, index: Any, kind: Any = I64) -> Any:
    """Return element ``index`` of an array of integers, widened to 64 bits."""
    width = kind.width // 8
    value = b.load(pointer(b, base, b.mul(index, i64(width)), kind), align=width)
    return value if kind is I64 else b.sext(value, I64)


@contextmanager
def items(b: ir.IRBuilder, counter: Any, count: Any) -> Iterator[Any]:
    """Run the body for numbers below ``count`` that no other thread has taken."""
    head, body, after = (b.append_basic_block(n) for n in ("next", "item", "done"))
    b.branch(head)
    b.position_at_end(head)
    number = taken(b, counter)
    b.cbranch(b.icmp_signed("<", number, count), body, after)
    b.position_at_end(body)
    yield number
    b.branch(head)
    b.position_at_end(after)


def taken(b: ir.IRBuilder, counter: Any) -> Any:
    """Return the counter and add one to it, so that no other thread gets the same number."""
    return b.atomic_rmw("add", pointer(b, counter, i64(0), I64), i64(1), "monotonic")


@contextmanager
def loop(b: ir.IRBuilder, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
    """Run the body for start, start + step, ... below stop."""
    with summing(b, start, stop, step, []) as (index, _):
        yield index


@contextmanager
def summing(b: ir.IRBuilder, start: Any, stop: Any, step: int, sums: list[Any]) -> Iterator[Any]:
    """As ``loop``, carrying ``sums``: the body replaces the list's elements.

    Yields (index, list of the values carried); afterwards ``sums`` holds the last ones.
    """
    before = b.block
    head = b.append_basic_block("head")
    body = b.append_basic_block("body")
    after = b.append_basic_block("after")
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(start, before)
    carried = [b.phi(s.type) for s in sums]
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", index, stop), body, after)
    b.position_at_end(body)
    current = list(carried)
    yield index, current
    index.add_incoming(b.add(index, i64(step)), b.block)
    for phi, value in zip(carried, current, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(after)
    sums[:] = carried


class Program:
    """A function being written: its module, a builder, vectors and slots.

    Args:
        name: of the function; no two alike in a process.
        slots: names of the launch's arguments.
    """

    def __init__(self, name: str, lanes: int, dtype: str, slots: tuple[str, ...]) -> None:
        self.name = name
        self.module, base, self.b = new_function(name)
        self.v = Vectors(self.module, lanes, dtype)
        self.s = Slots(self.b, base, slots)

    def body(self) -> None:
        """Write what the function does."""
        raise NotImplementedError

    def written(self) -> tuple[ir.Module, str]:
        """Return the module and the name of its function."""
        self.body()
        self.b.ret_void()
        return self.module, self.name


class Vectors:
    """Vectors of ``lanes`` float32 and their way to and from memory in a dtype."""

    def __init__(self, module: ir.Module, lanes: int, dtype: str) -> None:
        self.lanes, self.dtype = lanes, dtype
        self.item_bytes = ITEM_BYTES[dtype]
        self.kind = ir.VectorType(F32, lanes)
        kind = ir.FunctionType(self.kind, [self.kind] * 3)
        self._fma = ir.Function(module, kind, f"llvm.fma.v{lanes}f32")

    def fma(self, b: ir.IRBuilder, x: Any, y: Any, z: Any) -> Any:
        """Return x * y + z, rounded once."""
        return b.call(self._fma, [x, y, z])

    def zero(self) -> Any:
        """Return a vector of zeros."""
        return ir.Constant(self.kind, [0.0] * self.lanes)

    def spread(self, b: ir.IRBuilder, scalar: Any) -> Any:
        """Return a vector whose lanes all hold the scalar."""
        one = b.insert_element(ir.Constant(self.kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(one, ir.Constant(self.kind, ir.Undefined), mask)

    def load_float32(self, b: ir.IRBuilder, address: Any) -> Any:
        """Return ``lanes`` float32 from an address."""
        return b.load(b.inttoptr(address, self.kind.as_pointer()), align=4)

    def store_float32(self, b: ir.IRBuilder, vector: Any, address: Any) -> None:
        """Write ``lanes`` float32 to an address."""
        b.store(vector, b.inttoptr(address, self.kind.as_pointer()), align=4)

    def load(self, b: ir.IRBuilder, address: Any) -> Any:
        """Return ``lanes`` numbers of the dtype from an address, as float32."""
        if self.dtype == "float32":
            return self.load_float32(b, address)
        stored = ir.VectorType(NUMBERS[self.dtype], self.lanes)
        found = b.load(b.inttoptr(address, stored.as_pointer()), align=2)
        if self.dtype == "float16":
            return b.fpext(found, self.kind)
        wide = ir.VectorType(I32, self.lanes)
        return b.bitcast(b.shl(b.zext(found, wide), self._all(16)), self.kind)

    def store(self, b: ir.IRBuilder, vector: Any, address: Any) -> None:
        """Write a float32 vector to an address, rounded to the dtype."""
        if self.dtype == "float32":
            return self.store_float32(b, vector, address)
        stored = ir.VectorType(NUMBERS[self.dtype], self.lanes)
        if self.dtype == "float16":
            rounded = b.fptrunc(vector, stored)
        else:
            rounded = self._bfloat16(b, vector, stored)
        b.store(rounded, b.inttoptr(address, stored.as_pointer()), align=2)
        return None

    def copy(self, b: ir.IRBuilder, origin: Any, place: Any, count: int) -> None:
        """Write ``count`` numbers of the dtype to float32 memory; a multiple of the lanes."""
        for at in range(0, count, self.lanes):
            vector = self.load(b, b.add(origin, i64(at * self.item_bytes)))
            self.store_float32(b, vector, b.add(place, i64(4 * at)))

    def add_products(
        self, b: ir.IRBuilder, scalars: list[Any], row: Any, vectors: int, sums: list[Any]
    ) -> None:
        """Add to ``sums`` the float32 at each address of ``scalars`` times ``vectors`` of a row."""
        columns = [
            self.load_float32(b, b.add(row, i64(4 * self.lanes * j))) for j in range(vectors)
        ]
        for i, address in enumerate(scalars):
            spread = self.spread(b, b.load(b.inttoptr(address, F32.as_pointer()), align=4))
            for j, column in enumerate(columns):
                at = i * vectors + j
                sums[at] = self.fma(b, spread, column, sums[at])

    def _bfloat16(self, b: ir.IRBuilder, vector: Any, stored: Any) -> Any:
        """Round to nearest, ties to even.

        What is no number stays none: it came from 16 bits or from the processor, and has zeros
        below, so that rounding carries nothing.
        """
        bits = b.bitcast(vector, ir.VectorType(I32, self.lanes))
        odd = b.and_(b.lshr(bits, self._all(16)), self._all(1))
        return b.trunc(b.lshr(b.add(b.add(bits, self._all(0x7FFF)), odd), self._all(16)), stored)

    def _all(self, value: int) -> Any:
        return ir.Constant(ir.VectorType(I32, self.lanes), [value] * self.lanes)


def transpose(b: ir.IRBuilder, rows: list[Any]) -> list[Any]:
    """Return the transpose of n vectors of n lanes, n a power of two."""
    n = len(rows)
    half = n // 2
    while half:
        mask_low, mask_high = _halves(n, half)
        done = list(rows)
        for i in range(n):
            if not i & half:
                done[i] = b.shuffle_vector(rows[i], rows[i | half], mask_low)
                done[i | half] = b.shuffle_vector(rows[i], rows[i | half], mask_high)
        rows, half = done, half // 2
    return rows


def _halves(n: int, half: int) -> tuple[Any, Any]:
    """Return the masks that exchange the off-diagonal squares of size ``half``."""
    low = [j if not j & half else n + j - half for j in range(n)]
    high = [j + half if not j & half else n + j for j in range(n)]
    kind = ir.VectorType(I32, n)
    return ir.Constant(kind, low), ir.Constant(kind, high)
