"""Making the threads of Bytewax's workers cheap to call Python from."""

from __future__ import annotations

import ctypes
import threading

_thread = threading.local()


def keep_thread_state() -> None:
    """Let the calling thread keep the interpreter's state of it.

    Bytewax's threads are not Python's: whenever one of them calls into Python, a
    state is made for it and thrown away afterwards, with memory that the kernel
    maps and unmaps. Taking the interpreter once more than it is given back keeps
    the state (PyGILState_Ensure in Python's C API).
    """
    if not hasattr(_thread, "is_kept"):
        ctypes.pythonapi.PyGILState_Ensure()
        _thread.is_kept = True
