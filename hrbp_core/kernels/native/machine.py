"""This machine's vector unit, and the way from LLVM IR to a function that can be called."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import lru_cache
from importlib.util import find_spec
from threading import RLock
from typing import Any

_LOCK = RLock()  # over the engine
LANES = {"avx512f": 16, "avx2": 8}
# Products of half precision in the vector unit: twice the rate of float32, and oneDNN uses them.
MULTIPLIES = {
    "torch.bfloat16": ("avx512bf16", "amx-bf16"),
    "torch.float16": ("avx512fp16", "amx-fp16"),
}


@lru_cache(maxsize=1)
def obstacle() -> str:
    """Return why this machine cannot have machine code of our own, or nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"{sys.platform} on {platform.machine()}, not Linux on x86_64"
    if find_spec("llvmlite") is None:
        return "no llvmlite in this environment"
    if not lanes():
        return "a processor without AVX2 and FMA"
    from hrbp_core.kernels.native.threads import parallel

    if parallel() is None:
        return "no OpenMP library in this process"
    return _trial()


def _trial() -> str:
    """Compile and call a function: some systems forbid memory that can be executed."""
    from hrbp_core.kernels.native import emit

    module, base, b = emit.new_function("trial")
    b.store(emit.i64(42), b.inttoptr(base, emit.I64.as_pointer()))
    b.ret_void()
    try:
        address = compile_function(module, "trial")
    except (RuntimeError, OSError) as error:
        return f"LLVM failed: {error}"
    cell = ctypes.c_int64(0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(cell))
    return "" if cell.value == 42 else "compiled code that does nothing"


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """Return the processor's features by LLVM's names."""
    import llvmlite.binding as llvm

    found = llvm.get_host_cpu_features()
    return frozenset(name for name, there in found.items() if there)


@lru_cache(maxsize=1)
def lanes() -> int:
    """Return the float32 numbers of a vector register: 16 with AVX-512, 8 with AVX2, else 0."""
    if not {"fma", "f16c"} <= features():
        return 0
    return next((count for name, count in LANES.items() if name in features()), 0)


def multiplies(dtype: str) -> bool:
    """Return whether the vector unit multiplies numbers of a dtype ("torch.bfloat16") itself."""
    return any(name in features() for name in MULTIPLIES.get(dtype, ()))


def describe() -> str:
    """Return what computes here, in a few words: for tables and ``doctor``."""
    reason = obstacle()
    if reason:
        return f"torch grouped convolution ({reason})"
    return "machine code, AVX-512" if lanes() == 16 else "machine code, AVX2"


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, Any]:
    """Return (execution engine, target machine) of LLVM for this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine), machine


def compile_function(module: Any, name: str) -> int:
    """Return the address of a function of an IR module, compiled and kept for good.

    Args:
        name: of the function; no other function may ever have it, for one engine holds them all.
    """

    with _LOCK:
        compiler, machine = _engine()
        if compiler.get_function_address(name):
            raise ValueError(f"expected a new name for a compiled function, got {name!r} again")
        parsed = optimized(module, machine)
        compiler.add_module(parsed)
        compiler.finalize_object()
        return int(compiler.get_function_address(name))


def optimized(module: Any, machine: Any) -> Any:
    """Return an IR module, parsed and optimized for a target machine of LLVM."""
    import llvmlite.binding as llvm

    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # the loops are written as they should run; these passes only cost time
    options.loop_unrolling = options.loop_interleaving = False
    options.slp_vectorization = options.loop_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed
