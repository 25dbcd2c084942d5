"""One thread for linear algebra too small for more."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager:
    """Holds BLAS and OpenMP to one thread inside a `with` block.

    With two threads, and another job beside them, small fits and products are up to a hundred times slower.

    Example:
        >>> import numpy as np
        >>> with one_thread():
        ...     np.ones((2, 2)) @ np.ones(2)
        array([2., 2.])
    """
    return _controller().limit(limits=1)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # reads the list of loaded libraries: 10 ms, so once
