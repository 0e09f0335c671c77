"""GPUs: which there are, and what to do when one is lost.

Vulkan, Metal or DirectX 12 drives them; nothing but the system's driver is needed. `"gpu"` is the first of `devices()`,
`"gpu:1"` the second. The environment variable `WENGERT_GPU`, a number or part of a name, puts that one first.
"""

from __future__ import annotations

from wengert._core import gpu_devices, gpu_reset

__all__ = ["devices", "is_available", "reset"]


def devices() -> list[str]:
    """The GPUs that can be used, the best first.

    Discrete ones come before integrated, virtual and software ones. The first call asks the drivers; a process that was
    forked from one that had used a GPU has none.

    Returns:
        Name, driver interface and kind of each, as in `"llvmpipe (LLVM 15.0.6, 256 bits) (vulkan, cpu)"`.

    Example:
        >>> import wengert as wg
        >>> isinstance(wg.gpu.devices(), list)
        True
    """
    return gpu_devices()


def is_available() -> bool:
    """Whether there is a GPU: a driver that works and a device behind it. Never raises.

    A software device counts, though the CPU by itself is faster: `devices()` tells which it is.

    Example:
        >>> import wengert as wg
        >>> device = "gpu" if wg.gpu.is_available() else "cpu"
        >>> hardware = [name for name in wg.gpu.devices() if not name.endswith("cpu)")]
    """
    return bool(gpu_devices())


def reset() -> None:
    """Close all GPUs and look for them anew at their next use: the way on after `DeviceLostError`.

    Tensors that were on a GPU are lost: using one raises `DeviceLostError`. A model on the CPU, or one that was saved,
    can be moved to the GPU again.

    Raises:
        DeviceError: in a process that was forked from one that had used a GPU.
    """
    gpu_reset()
