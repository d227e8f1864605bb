"""A disk that may do to unsynced bytes and names whatever a real one may. No I/O; all of it is in memory.

Each file has what programs see (the page cache) and what is on the platter; each folder too. What was not
synced is lost or kept sector by sector and name by name, in any subset, when the power is cut. A kill loses
nothing of that, and syncs nothing either.
"""

from collections.abc import Iterable
from itertools import count
from random import Random

from perstack_stored.datadir.layout import FileSystemFeatures

SECTOR_BYTES = 512
PAGE_SECTORS = 8

_numbers = count(2)


class File:
    """A file: `data` is what programs read, `disk` what is on the platter, `dirty` what is not synced yet."""

    __slots__ = ("data", "dirty", "disk", "errors", "mode", "number", "reported", "version")

    def __init__(self, mode: int, number: int = 0) -> None:
        self.number = number or next(_numbers)
        self.mode = mode
        self.data = bytearray()
        self.disk = bytearray()
        self.dirty: dict[int, int] = {}  # sector: version of the file as of its last change
        self.version = 0
        self.errors = 0  # write-backs that failed; each open descriptor hears of them once
        self.reported = True

    def write(self, data: bytes, offset: int) -> None:
        """Write to the page cache."""
        self.version += 1
        end = offset + len(data)
        first = min(offset, len(self.data)) // SECTOR_BYTES  # a gap becomes zeros
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:end] = data
        for sector in range(first, -(-end // SECTOR_BYTES)):
            self.dirty[sector] = self.version

    def resize(self, size: int) -> None:
        """Truncate, or extend by zeros."""
        self.version += 1
        first = min(size, len(self.data)) // SECTOR_BYTES
        last = -(-max(size, len(self.data)) // SECTOR_BYTES)
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        for sector in range(first, last):
            self.dirty[sector] = self.version

    def begin_sync(self) -> "Sync":
        """What a sync that begins now will have put on the platter when it has ended."""
        return Sync(self)

    def drop(self, random: Random) -> None:
        """As Linux does after a failed write-back: the pages count as clean, whatever of them was written."""
        for sector in self.dirty:
            if random.random() < 0.3:
                self._put(sector, self._sector(sector))
        if self.dirty:
            self.errors += 1
            self.reported = False
        self.dirty.clear()

    def forget(self) -> None:
        """Drop the clean pages from the cache, so that the next read comes from the platter."""
        for sector in range(-(-len(self.data) // SECTOR_BYTES)):
            if sector not in self.dirty:
                start = sector * SECTOR_BYTES
                end = min(start + SECTOR_BYTES, len(self.data))
                self.data[start:end] = bytes(self.disk[start:end]).ljust(end - start, b"\0")

    def _sector(self, sector: int) -> bytes:
        return bytes(self.data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])

    def _put(self, sector: int, data: bytes) -> None:
        start = sector * SECTOR_BYTES
        if len(self.disk) < start + len(data):
            self.disk.extend(bytes(start + len(data) - len(self.disk)))
        self.disk[start : start + len(data)] = data

    def copy(self) -> "File":
        """The same file of a copied disk."""
        new = File(self.mode, self.number)
        new.data, new.disk, new.dirty = bytearray(self.data), bytearray(self.disk), dict(self.dirty)
        new.version, new.errors, new.reported = self.version, self.errors, self.reported
        return new

    def after_power_cut(self, random: Random, odds: float, pages: bool, torn: bool) -> "File":
        """The same file when the power is back: each unsynced sector is as it was, or as it should be."""
        new = File(self.mode, self.number)
        size, old_size = len(self.data), len(self.disk)
        if size != old_size and self.dirty:
            size = random.choice([size, old_size, random.randint(min(size, old_size), max(size, old_size))])
            if odds in {0.0, 1.0}:
                size = len(self.data) if odds else old_size
        elif not self.dirty:
            size = old_size
        content = bytearray(self.disk[:size]).ljust(size, b"\0")
        kept: dict[int, bool] = {}
        for sector in sorted(self.dirty):
            unit = sector // PAGE_SECTORS if pages else sector
            if kept.setdefault(unit, random.random() < odds):
                start = sector * SECTOR_BYTES
                data = self._sector(sector)
                if torn and random.random() < 0.2:
                    data = data[: random.randrange(SECTOR_BYTES)]
                data = data[: max(0, size - start)]
                content[start : start + len(data)] = data
        new.data, new.disk = content, bytearray(content)
        return new


class Sync:
    """A sync of a file under way: it covers what was written before it began."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._size = len(file.data)
        self._sectors = {s: (file.dirty[s], file._sector(s)) for s in file.dirty}

    def end(self) -> None:
        """All of it is on the platter."""
        file = self._file
        size = self._size
        if len(file.disk) > size:
            del file.disk[size:]
        for sector, (version, data) in self._sectors.items():
            file._put(sector, data)
            if file.dirty.get(sector) == version:
                del file.dirty[sector]
        file.disk.extend(bytes(max(0, size - len(file.disk))))
        del file.disk[size:]


class Folder:
    """A folder: `names` is what programs see, `disk` what is on the platter."""

    __slots__ = ("disk", "mode", "names", "number")

    def __init__(self, mode: int = 0o750, number: int = 0) -> None:
        self.number = number or next(_numbers)
        self.mode = mode
        self.names: dict[str, Node] = {}
        self.disk: dict[str, Node] = {}


Node = File | Folder
Slot = tuple[Folder, str, Node | None]  # what a name in a folder stands for now; None: nothing


class Disk:
    """A file system: its root, and the changes of names that are not synced, oldest first."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.ways = FileSystemFeatures()  # what this file system has
        self.pending: list[tuple[Slot, ...]] = []

    def change(self, *slots: Slot) -> None:
        """Change some names in one step."""
        for folder, name, node in slots:
            if node is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = node
        self.pending.append(slots)

    def sync_names(self, folder: Folder) -> None:
        """Put a folder's names on the platter, and with them whatever belongs to the same steps."""
        needed = {(id(folder), name) for op in self.pending for where, name, _ in op if where is folder}
        chosen: set[int] = set()
        grown = True
        while grown:
            grown = False
            for i, op in enumerate(self.pending):
                slots = {(id(where), name) for where, name, _ in op}
                if i not in chosen and slots & needed:
                    chosen.add(i)
                    needed |= slots
                    grown = True
        _apply([op for i, op in enumerate(self.pending) if i in chosen])
        self.pending = [op for i, op in enumerate(self.pending) if i not in chosen]

    def sync_all(self) -> None:
        """Put all names and all files on the platter."""
        _apply(self.pending)
        self.pending = []
        for node in self.nodes():
            if isinstance(node, File):
                node.begin_sync().end()

    def nodes(self) -> list[Node]:
        """Everything that has a name, or had one that may come back."""
        found: dict[int, Node] = {}
        todo: list[Node] = [self.root, *(node for op in self.pending for _, _, node in op if node)]
        todo += [folder for op in self.pending for folder, _, _ in op]
        while todo:
            node = todo.pop()
            if id(node) not in found:
                found[id(node)] = node
                if isinstance(node, Folder):
                    todo += [*node.names.values(), *node.disk.values()]
        return list(found.values())

    def copy(self) -> "Disk":
        """The disk after a kill: what programs had written is still to be synced."""
        nodes = self.nodes()
        copies: dict[int, Node] = {
            id(node): node.copy() if isinstance(node, File) else Folder(node.mode, node.number)
            for node in nodes
        }
        for node in nodes:
            new = copies[id(node)]
            if isinstance(node, Folder) and isinstance(new, Folder):
                new.names = {name: copies[id(inner)] for name, inner in node.names.items()}
                new.disk = {name: copies[id(inner)] for name, inner in node.disk.items()}
        root = copies[id(self.root)]
        assert isinstance(root, Folder)
        disk = Disk(root)
        disk.ways = self.ways
        for op in self.pending:
            slots = []
            for folder, name, inner in op:
                where = copies[id(folder)]
                assert isinstance(where, Folder)
                slots.append((where, name, copies[id(inner)] if inner else None))
            disk.pending.append(tuple(slots))
        return disk

    def after_power_cut(self, random: Random) -> "Disk":
        """The disk when the power is back. Of what was not synced any part may be lost."""
        odds = random.choice([0.0, 0.0, 0.1, 0.5, 0.9, 1.0])
        name_odds = random.choice([odds, 0.0, 0.5, 1.0])
        return self.lossy(random, odds, name_odds, pages=random.random() < 0.5, torn=random.random() < 0.5)

    def after_worst_power_cut(self) -> "Disk":
        """The disk when nothing is left that was not synced."""
        return self.lossy(Random(0), 0.0, 0.0, pages=False, torn=False)

    def lossy(self, random: Random, odds: float, name_odds: float, *, pages: bool, torn: bool) -> "Disk":
        """The disk after a power cut, where each unsynced sector and name has such odds to be kept."""
        disk = self.copy()
        _apply([op for op in disk.pending if random.random() < name_odds])
        disk.pending = []
        new: dict[int, Node] = {}

        def revive(node: Node) -> Node:
            if id(node) not in new:
                if isinstance(node, File):
                    new[id(node)] = node.after_power_cut(random, odds, pages, torn)
                else:
                    new[id(node)] = node
                    node.names = {name: revive(inner) for name, inner in node.disk.items()}
                    node.disk = dict(node.names)
            return new[id(node)]

        revive(disk.root)
        return disk

    def find(self, *path: str) -> Node | None:
        """What stands at a path."""
        node: Node | None = self.root
        for name in path:
            node = node.names.get(name) if isinstance(node, Folder) else None
        return node

    def folder(self, *path: str) -> Folder:
        """A folder at a path, made and synced if it is not there."""
        node = self.root
        for name in path:
            inner = node.names.get(name)
            if inner is None:
                inner = node.names[name] = node.disk[name] = Folder()
            assert isinstance(inner, Folder)
            node = inner
        return node

    def files_under(self, *path: str) -> dict[str, File]:
        """All files that can be seen under a path."""
        found: dict[str, File] = {}
        node = self.find(*path)
        if isinstance(node, Folder):
            for name, inner in node.names.items():
                if isinstance(inner, File):
                    found["/".join((*path, name))] = inner
                else:
                    found |= self.files_under(*path, name)
        return found


def _apply(ops: Iterable[tuple[Slot, ...]]) -> None:
    for op in ops:
        for folder, name, node in op:
            if node is None:
                folder.disk.pop(name, None)
            else:
                folder.disk[name] = node
