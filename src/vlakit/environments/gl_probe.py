# SPDX-License-Identifier: Apache-2.0
"""Ask EGL what it draws with: run as a program, it prints one line of JSON.

A driver that is broken can crash the process that asks, and one that works leaves threads behind,
so `rendering.py` runs this file on its own. It needs nothing but the standard library.

    {"vendor": "NVIDIA", "is_software": false}      a display came up
    {"problem": "EGL finds no device"}              it did not
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any

PLATFORM_DEVICE = 0x313F
EXTENSIONS = 0x3055
VENDOR = 0x3053
SOFTWARE = b"EGL_MESA_device_software"
MAX_DEVICES = 16


def probe() -> dict[str, Any]:
    """Return what the first EGL device that starts calls itself, or why none does.

    Devices are asked in the order in which MuJoCo tries them. Source of the calls: the Khronos
    extensions EGL_EXT_device_enumeration and EGL_EXT_platform_device.
    """
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError as error:
        return {"problem": str(error)}
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_devices = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    get_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    query_string = egl.eglGetProcAddress(b"eglQueryDeviceStringEXT")
    if not (query_devices and get_display and query_string):
        return {"problem": "EGL cannot list its devices"}
    handle, text = ctypes.c_void_p, ctypes.c_char_p
    devices, count = (handle * MAX_DEVICES)(), ctypes.c_int()
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, handle, handle)(query_devices)(
        MAX_DEVICES, devices, ctypes.byref(count)
    )
    egl.eglInitialize.argtypes = [handle, handle, handle]
    egl.eglQueryString.argtypes, egl.eglQueryString.restype = [handle, ctypes.c_int], text
    chosen = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    first, last = (int(chosen), int(chosen) + 1) if chosen else (0, count.value)
    for device in devices[first : min(last, count.value)]:
        display = ctypes.CFUNCTYPE(handle, ctypes.c_int, handle, handle)(get_display)(
            PLATFORM_DEVICE, device, None
        )
        if display and egl.eglInitialize(display, None, None):
            kinds = ctypes.CFUNCTYPE(text, handle, ctypes.c_int)(query_string)(device, EXTENSIONS)
            vendor = egl.eglQueryString(display, VENDOR) or b"unknown"
            return {"vendor": vendor.decode(), "is_software": SOFTWARE in (kinds or b"")}
    return {"problem": f"none of EGL's {count.value} devices starts: there is no driver"}


if __name__ == "__main__":
    print(json.dumps(probe()))  # noqa: T201
