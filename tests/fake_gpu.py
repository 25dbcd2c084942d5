"""A GPU for a machine without one: it computes nothing, refuses what a real one refuses, and counts waits for it."""

from __future__ import annotations

import traceback
from collections import defaultdict

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.equal, aten.masked_select, aten.bincount,
         aten._unique2, aten.unique_consecutive, aten.unique_dim}  # fmt: skip
COPIES = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class FakeGpu(TorchDispatchMode):
    """Inside the block tensors on "cuda" are torch's fake ones, of shape, type and device alone; others are real.

    Fake tensors raise an error when they meet one of another device. Values that are read from them are 1.

    Attributes:
        waits: Every time the CPU had to wait for the GPU: the operation, and the line of the package that asked for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake, self.waits = FakeTensorMode(allow_non_fake_inputs=True), []

    def __enter__(self):
        self.fake.__enter__()  # the outer of the two, so that torch looks for no driver
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves([args, kwargs])
        if not any(isinstance(leaf, FakeTensor) or getattr(leaf, "type", "") == "cuda" for leaf in leaves):
            with unset_fake_temporarily():
                return operation(*args, **kwargs)
        if must_wait(operation.overloadpacket, args, kwargs):
            lines = [line for line in traceback.extract_stack() if "/mvf/" in line.filename]
            self.waits.append(f"{operation} at {lines[-1].filename}:{lines[-1].lineno}" if lines else str(operation))
        if operation.overloadpacket is aten._local_scalar_dense:
            return 1.0 if args[0].is_floating_point() else 1
        if torch.is_inference_mode_enabled() and operation.namespace == "aten":  # where operations come whole
            parts = operation.decompose(*args, **kwargs)
            return operation(*args, **kwargs) if parts is NotImplemented else parts
        return operation(*args, **kwargs)


def must_wait(name, args, kwargs) -> bool:
    """Whether an operation returns only when the GPU has done all its work.

    That is so where it reads values, where the shape of a result depends on them, and for a copy between devices,
    except to the GPU with `non_blocking`.
    """
    tensors = [leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, Tensor)]
    devices = {tensor.device.type for tensor in tensors}
    if name in COPIES:
        source = args[1 if name is aten.copy_ else 0].device.type
        target = kwargs.get("device") or args[0].device
        free = kwargs.get("non_blocking") or (name is aten.copy_ and len(args) > 2 and args[2])
        return source != target.type and not (free and target.type == "cuda")
    if name in INDEXING:  # by a mask, or by numbers that lie elsewhere
        return any(index.dtype == torch.bool for index in args[1] if index is not None) or devices == {"cpu", "cuda"}
    return name in READS and "cuda" in devices


def backward(loss: Tensor) -> None:
    """`loss.backward()` for fake tensors; torch's own asks the driver for its devices."""
    grads = defaultdict(dict)
    grads[loss.grad_fn][0] = torch.ones_like(loss)
    for node in _from_the_end(loss.grad_fn):
        given = grads.pop(node, {})
        if hasattr(node, "variable"):
            assert given[0].device == node.variable.device
            node.variable.grad = given[0] if node.variable.grad is None else node.variable.grad + given[0]
            continue
        found = node(*(given.get(i) for i in range(len(node._input_metadata))))
        for (then, place), grad in zip(node.next_functions, found if isinstance(found, tuple) else (found,)):
            if then is not None and grad is not None:
                like = then.variable if hasattr(then, "variable") else then._input_metadata[place]
                grad = grad.sum_to_size(tuple(like.shape))
                grads[then][place] = grads[then][place] + grad if place in grads[then] else grad


def _from_the_end(root) -> list:
    """Nodes that a result was computed by, each after those that use it."""
    order, seen, todo = [], set(), [(root, False)]
    while todo:
        node, done = todo.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            todo += [(node, True), *((before, False) for before, _ in node.next_functions if before is not None)]
    return order[::-1]
