"""How the C library's allocator, which torch, NumPy and OpenCV share, treats memory that is freed."""

import ctypes
import sys


def keep_freed_memory(most: int = 2**31 - 1) -> None:
    """Let glibc keep up to ``most`` bytes that one step frees for the next, in this process from now on.

    By default it gives large blocks back to the system, which then clears them, page by page, in every step. Elsewhere
    than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
        # One setting ends glibc's own adapting of both, so without the other it would harm; old ones take 32 MB at most
        if libc.mallopt(mmap_threshold, most // 2) or libc.mallopt(mmap_threshold, min(most // 2, 32 * 2**20)):
            libc.mallopt(trim_threshold, most)
