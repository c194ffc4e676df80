"""Other machines, emulated: what Windows refuses, and a device that knows no float64."""

import errno
import fcntl
import os
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


def like_windows(monkeypatch) -> None:
    """fsync needs a handle that may write; an open file is neither replaced nor deleted."""

    def writable_alone(fsync):
        def checked(descriptor):
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "Bad file descriptor")
            return fsync(descriptor)

        return checked

    def closed_alone(touch):
        def checked(*paths, **options):
            for path in paths:
                if os.path.realpath(path) in open_files():
                    raise PermissionError(errno.EACCES, "used by another process", str(path))
            return touch(*paths, **options)

        return checked

    monkeypatch.setattr(os, "fsync", writable_alone(os.fsync))
    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, closed_alone(getattr(os, name)))


def open_files() -> set[str]:
    handles = Path("/proc/self/fd").iterdir()
    return {os.path.realpath(handle) for handle in handles}


class Elsewhere(torch.Tensor):
    """A tensor on the emulated device: it meets no tensor of the CPU, but numbers, and is never
    float64. `elsewhere` makes one; `.cpu()` brings it home."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        given = tree_leaves((args, kwargs or {}))
        if func is torch.Tensor.double or torch.float64 in [g for g in given if not is_tensor(g)]:
            raise TypeError("the device does not know float64")
        if any(is_tensor(g) and not isinstance(g, Elsewhere) and g.ndim for g in given):
            raise RuntimeError("expected all tensors to be on the same device")
        return super().__torch_function__(func, types, args, kwargs)


def is_tensor(given) -> bool:
    return isinstance(given, torch.Tensor)


def elsewhere(x: torch.Tensor) -> Elsewhere:
    return x.as_subclass(Elsewhere)


ELSEWHERE = torch.device("meta")


class DeviceElsewhere(TorchFunctionMode):
    """While it is on, what goes to the device `ELSEWHERE` arrives there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to and ELSEWHERE in args[1:]:
            return elsewhere(args[0])
        return func(*args, **(kwargs or {}))
