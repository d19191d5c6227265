"""Compile a launch for a GPU that is not here.

The signature, the constants and what is known of divisibility come from Triton's own binder fed
with the launch's own arguments, so that what is compiled is what would run: a 128x64x64 tile
compiled without its divisibility used 255 registers, 736 bytes of stack and two-byte loads.
"""

from __future__ import annotations

from dataclasses import dataclass

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile, make_backend
from triton.runtime.jit import create_function_from_signature

from hrbp_core.kernels.launch import Launch


@dataclass(frozen=True)
class Binary:
    """What ptxas made of a launch.

    Attributes:
        name: the kernel's name in the binary.
        cubin: the binary; ptx: the text before it.
        shared_bytes: shared memory of a program.
        warps: of a program.
    """

    name: str
    cubin: bytes
    ptx: str
    shared_bytes: int
    warps: int


def compile_launch(launch: Launch, capability: int) -> Binary:
    """Return the binary of the launch for compute capability ``capability`` (90 for sm_90).

    Tensors may be on the meta device: their dtype counts, and their address as 0.

    Raises:
        RuntimeError: the kernels are interpreted in this process (TRITON_INTERPRET=1).
    """
    kernel = launch.kernel
    if not hasattr(kernel, "_pack_args"):
        raise RuntimeError("expected compiled kernels: unset TRITON_INTERPRET, in a new process")
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    given = {**launch.args, **launch.options, "debug": False}
    bound, specialization, options = binder(**given)
    options, signature, constants, attributes = kernel._pack_args(
        backend, {**launch.options, "debug": False}, bound, specialization, options
    )
    source = ASTSource(kernel, signature, constants, attributes)
    made = compile(source, target=target, options=options.__dict__)
    return Binary(
        made.metadata.name,
        made.asm["cubin"],
        made.asm["ptx"],
        made.metadata.shared,
        options.num_warps,
    )


def tool(name: str) -> str:
    """Return the path of a CUDA tool that comes with Triton.

    Args:
        name: "cuobjdump" or "nvdisasm"; TRITON_CUOBJDUMP_PATH or TRITON_NVDISASM_PATH overrides.

    Raises:
        RuntimeError: it cannot be found.
    """
    return str(getattr(knobs.nvidia, name).path)
