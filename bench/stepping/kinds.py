"""Which kind of work an operator or a GPU kernel does, by its name and those it stands in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.step_table import (
    BACKWARD,
    DGRAD,
    ELEMENTWISE,
    FPROP,
    NORM,
    OPTIMIZER,
    OTHER,
    PERMUTATION,
    WGRAD,
)

# The first rule that a name meets counts: what the compiler fused with a norm is normalisation.
_RULES = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"^Optimizer\.|_fused_sgd|_foreach_", OPTIMIZER),
        (r"hrbp::(one_sided_)?fprop$", FPROP),
        (r"hrbp::(one_sided_)?dgrad$", DGRAD),
        (r"hrbp::(one_sided_)?wgrad$", WGRAD),
        (r"hrbp::permute_channels", PERMUTATION),
        (r"GeneratedBackwardFor_hrbp|GeneratedBackwardFor_permute", OTHER),
        (r"convolution_backward|ConvolutionBackward|MkldnnConvolutionBackward", BACKWARD),
        (r"^aten::(mkldnn_|cudnn_|thnn_|slow_|_)*conv(olution\w*|[123]d)$", FPROP),
        (r"(?i)(batch|layer|group|instance)_?norm", NORM),
        (
            r"(?i)(^aten::|Backward|_)(relu|clamp_min|threshold|silu|gelu|sigmoid|tanh|hardtanh|"
            r"leaky_relu|native_dropout|dropout|add|sub|mul|div)_?(_|$)",
            ELEMENTWISE,
        ),
        (r"(Relu|Threshold|Silu|Gelu|Sigmoid|Tanh|ClampMin|Add|Sub|Mul|Div|Dropout)Backward\d",
         ELEMENTWISE),
    )
)  # fmt: skip
_KERNELS = (
    (re.compile(r"(?i)dgrad|bprop_?data|bwd_?data|backward_?data"), DGRAD),
    (re.compile(r"(?i)wgrad|bprop_?filter|bwd_?filter|backward_?filter|bwd_?weight"), WGRAD),
)


def kind_of(path: Sequence[str]) -> str:
    """Return the kind of an operator.

    Args:
        path: the names of the operators it stands in, the outermost first, its own last. The
            first that tells counts: what an optimizer or a convolution calls is its own.
    """
    for name in path:
        for pattern, kind in _RULES:
            if pattern.search(name):
                if kind == OTHER:
                    break  # says nothing itself; what it calls does
                return kind
    return OTHER


def kernel_kind(path: Sequence[str], kernel: str) -> str:
    """Return the kind of a GPU kernel that the last of ``path`` launched.

    One operator launches the kernels of dgrad and of wgrad: their own names tell them apart.
    """
    kind = kind_of(path)
    if kind == BACKWARD:
        return next((k for pattern, k in _KERNELS if pattern.search(kernel)), BACKWARD)
    return kind if kind != OTHER else kind_of([kernel])
