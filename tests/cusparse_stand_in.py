"""cuSPARSE's bindings as numpy: computes from the pointers and extents that it is given."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np

TYPES = {0: np.float32, 2: np.float16}


def at(pointer, count, dtype):
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype)


class StandIn:
    Operation = SimpleNamespace(NON_TRANSPOSE=0, TRANSPOSE=1)
    Order = SimpleNamespace(ROW=2, COL=1)
    IndexType = SimpleNamespace(INDEX_32I=2)
    IndexBase = SimpleNamespace(ZERO=0)
    SpMMAlg = SimpleNamespace(BSR_ALG1=14, BLOCKED_ELL_ALG1=13)
    SDDMMAlg = SimpleNamespace(DEFAULT=0)

    def __init__(self):
        self.alive = {}
        self.prepared = set()

    def _new(self, thing):
        key = len(self.alive) + 1000 + id(thing) % 7
        while key in self.alive:
            key += 1
        self.alive[key] = thing
        return key

    def create(self):
        return self._new("handle")

    def set_stream(self, handle, stream):
        assert self.alive[handle] == "handle"

    def destroy(self, key):
        del self.alive[key]

    destroy_sp_mat = destroy_dn_mat = destroy

    def create_dn_mat(self, rows, columns, ld, pointer, kind, order):
        assert (order, ld) == (self.Order.ROW, columns)
        return self._new(at(pointer, rows * columns, TYPES[kind]).reshape(rows, columns))

    def create_bsr(
        self, brows, bcols, n, rb, cb, starts, places, values, t1, t2, base, kind, order
    ):
        assert (t1, t2, base, order) == (2, 2, 0, self.Order.ROW)
        starts, places = at(starts, brows + 1, np.int32), at(places, n, np.int32)
        values = at(values, n * rb * cb, TYPES[kind]).reshape(n, rb, cb)
        rows = np.repeat(np.arange(brows), np.diff(starts))
        return self._new(("bsr", (brows * rb, bcols * cb), rows, places, values))

    def create_blocked_ell(self, rows, columns, size, width, places, values, index, base, kind):
        assert (index, base, width % size) == (2, 0, 0)
        places = at(places, rows // size * (width // size), np.int32).reshape(rows // size, -1)
        values = at(values, rows * width, TYPES[kind]).reshape(rows // size, size, -1, size)
        where = np.argwhere(places >= 0)
        blocks = values.transpose(0, 2, 1, 3)[tuple(where.T)]
        return self._new(("ell", (rows, columns), where[:, 0], places[tuple(where.T)], blocks))

    def _matrix(self, key):
        _, shape, rows, places, values = self.alive[key]
        size = values.shape[1]
        full = np.zeros((shape[0] // size, shape[1] // size, size, size), np.float64)
        full[rows, places] = values
        return full.transpose(0, 2, 1, 3).reshape(shape)

    def sp_mm_buffer_size(self, *operands):
        return 16

    def sp_mm_preprocess(self, *call):
        self.prepared.add(call)

    def sp_mm(self, *call):
        assert call in self.prepared
        handle, op_a, op_b, alpha, a, b, beta, c, compute, _, buffer = call
        assert self.alive[handle] == "handle"
        assert (op_a, op_b, compute) == (0, 0, 0)
        assert buffer
        assert (at(alpha, 1, np.float32)[0], at(beta, 1, np.float32)[0]) == (1, 0)
        out = self.alive[c]
        out.flags.writeable or out.setflags(write=True)
        out[...] = self._matrix(a) @ self.alive[b]

    def sddmm_buffer_size(self, *operands):
        at(operands[-1], 1, np.uint64)[0] = 32

    def sddmm_preprocess(self, *call):
        self.prepared.add(call)

    def sddmm(self, *call):
        assert call in self.prepared
        _, op_a, op_b, _, a, b, _, c, compute, _, _ = call
        assert (op_a, op_b, compute) == (0, 1, 0)
        _, _, rows, places, values = self.alive[c]
        full = self.alive[a] @ self.alive[b].T
        size = values.shape[1]
        grid = full.reshape(len(full) // size, size, -1, size).transpose(0, 2, 1, 3)
        values[...] = grid[rows, places]
