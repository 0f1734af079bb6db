"""Memory for what was decrypted: kept out of core dumps, wiped before it is given back."""

from __future__ import annotations

import contextlib
import mmap

from mibao.errors import InputError

IN_USE = "memory: still in use by an array or a view; let go of it first"
_HUGE_BYTES = 1 << 21
_ZEROS = bytes(1 << 18)


class SecretPages(mmap.mmap):
    """Zero bytes in pages of their own. Wiped by :meth:`close`, or once the last view of them is gone."""

    def __new__(cls, count: int) -> SecretPages:
        """``count`` bytes, at least one.

        Raises:
            OSError: there is no such memory, or the system cannot keep it out of core dumps.
        """
        # Private: Python's default is shared memory, which Linux gives out in small pages whatever it is advised.
        pages = super().__new__(cls, -1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_DONTDUMP)
        if count >= _HUGE_BYTES:
            with contextlib.suppress(OSError):  # advice: a kernel without large pages is only slower
                pages.madvise(mmap.MADV_HUGEPAGE)
        return pages

    def close(self) -> None:
        """Wipe the memory and give it back.

        Raises:
            InputError: an array or a view of it lives; nothing was wiped.
        """
        if self.closed:
            return
        try:
            self.resize(len(self))  # changes nothing, and is refused while anybody has a view
        except BufferError as error:
            raise InputError(IN_USE) from error
        self._wipe()
        super().close()

    def __del__(self) -> None:
        if not self.closed:  # no view is left: each of them holds this object
            self._wipe()

    def _wipe(self, zeros: bytes = _ZEROS) -> None:
        # By the object's own methods: at the end of the process modules may be gone.
        self.seek(0)
        for _ in range(len(self) // len(zeros)):
            self.write(zeros)
        self.write(zeros[: len(self) - self.tell()])


def fresh_memory(count: int) -> memoryview:
    """``count`` zero bytes of :class:`SecretPages`, which are the view's ``obj``; of nothing if ``count`` is 0."""
    return memoryview(SecretPages(count)) if count else memoryview(bytearray())
