"""What no grouping into blocks can exceed, on layers too large to try them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def block_bound(scores: Tensor, blocks: int, block: tuple[int, int]) -> float:
    """Return a share of the score that no all-tap blocks of any grouping exceed.

    A filter keeps its channels in whole runs of ``block_c``, so the sum over filters of each
    one's best runs bounds every grouping of the channels, one-sided or two-sided; and filters
    likewise for two-sided ones. Here the first is taken, which holds for both. Coverage and
    what filters of a group have to share are left out: the true best is below.

    Args:
        scores: [K, C, R, S]. blocks: kept blocks. block: (block_k, block_c).
    """
    kernel_wise: NDArray[np.float64] = scores.double().sum((2, 3)).numpy()
    total = kernel_wise.sum()
    if not total > 0:
        return 1.0
    ordered = -np.sort(-kernel_wise, axis=1)
    ordered = np.pad(ordered, ((0, 0), (0, -ordered.shape[1] % block[1])))
    runs = -np.sort(-ordered.reshape(len(ordered), -1, block[1]).sum(axis=2), axis=None)
    return float(min(runs[: blocks * block[0]].sum() / total, 1.0))
