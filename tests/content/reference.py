"""docs/batches.md in plain Python: what the compiled kernels are held against."""

from novacron.core.units import PAGE_BYTES

ZERO, COPY, DELTA, LITERAL, BLOCK = 1, 2, 3, 4, 5


class Section:
    """Reads a section from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        assert len(piece) == count
        self._at += count
        return piece

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def zigzag(self) -> int:
        value = self.uleb()
        return (value >> 1) ^ -(value & 1)


def operations(ops: bytes):
    """(kind, first page, pages, source page, or disk and block, or None) in order."""
    section, end = Section(ops), 0
    while not section.empty:
        kind = section.take(1)[0]
        page = end + section.zigzag()
        count = section.uleb()
        source = page + section.zigzag() if kind == COPY else None
        if kind == BLOCK:
            source = section.uleb(), section.uleb()
        end = page + count
        yield kind, page, count, source


def apply(ram: bytearray, ops: bytes, literals: bytes, deltas: bytes, disks: list[bytearray] = ()) -> None:
    """Do in ``ram`` what the operations say, a page at a time."""
    whole, patches = Section(literals), Section(deltas)
    for kind, first, count, source in operations(ops):
        for n in range(count):
            at = (first + n) * PAGE_BYTES
            if kind == ZERO:
                ram[at : at + PAGE_BYTES] = bytes(PAGE_BYTES)
            elif kind == COPY:
                begin = (source + n) * PAGE_BYTES
                ram[at : at + PAGE_BYTES] = ram[begin : begin + PAGE_BYTES]
            elif kind == BLOCK:
                disk, begin = source[0], (source[1] + n) * PAGE_BYTES
                ram[at : at + PAGE_BYTES] = disks[disk][begin : begin + PAGE_BYTES]
            elif kind == LITERAL:
                ram[at : at + PAGE_BYTES] = whole.take(PAGE_BYTES)
            else:
                while (step := (patches.uleb(), patches.uleb())) != (0, 0):
                    at += step[0]
                    for byte in patches.take(step[1]):
                        ram[at] ^= byte
                        at += 1
    assert whole.empty
    assert patches.empty
