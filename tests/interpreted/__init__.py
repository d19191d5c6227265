"""The Triton kernels in Triton's interpreter: ``python -m tests.interpreted``.

A process of their own, because a kernel is interpreted or compiled for good when it is
decorated, and the rest of the tests compile it.
"""
