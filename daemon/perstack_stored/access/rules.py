"""Access rules: users and groups of this machine, and clients known by their key. In doubt: no access."""

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, field

from perstack_stored.config.settings import Settings
from perstack_stored.errors import ConfigError

from .curve_keys import Access, KeyPair, ListedClient, load, load_clients

_ALL_IDS = 2**32 - 1


@dataclass(frozen=True)
class AccessRules:
    """The rules in force; replaced at a reload.

    Attributes:
        deleting_groups: groups whose members may delete, if they may store.
        owner: user of the daemon, who may delete as well.
        clients: clients that may connect with CURVE, by public key; None without CURVE.
    """

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    reading_users: frozenset[int] = frozenset()
    reading_groups: frozenset[int] = frozenset()
    deleting_groups: frozenset[int] = frozenset()
    owner: int = field(default_factory=os.geteuid)
    clients: dict[str, ListedClient] | None = None
    _groups_of: dict[int, frozenset[int]] = field(default_factory=dict, compare=False)

    @property
    def lists_users(self) -> bool:
        """Whether some user of this machine has no access, or may only read."""
        return bool(self.users or self.groups or self.reading_users or self.reading_groups)

    def of_user(self, uid: int, gid: int) -> Access:
        """Access of a user of this machine; a list of readers takes precedence over one of writers."""
        if not self.lists_users:
            return self._writing(uid, gid)
        groups = self._groups(uid) | {gid}
        if uid in self.reading_users or groups & self.reading_groups:
            return Access.READ
        if uid in self.users or groups & self.groups or not (self.users or self.groups):
            return self._writing(uid, gid)
        return Access.NONE

    def _writing(self, uid: int, gid: int) -> Access:
        """Access of a user who may store."""
        if uid == self.owner:
            return Access.DELETE
        if self.deleting_groups and (self._groups(uid) | {gid}) & self.deleting_groups:
            return Access.DELETE
        return Access.WRITE

    def of_key(self, key: str) -> ListedClient | None:
        """The client with this key, if it may connect."""
        return self.clients.get(key) if self.clients is not None else None

    def _groups(self, uid: int) -> frozenset[int]:
        """Groups of a user in the system's database; looked up once for each reload."""
        known = self._groups_of.get(uid)
        if known is None:
            try:
                entry = pwd.getpwuid(uid)
                known = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
            except (KeyError, OSError):
                known = frozenset()
            self._groups_of[uid] = known
        return known


def rules_of(settings: Settings) -> AccessRules:
    """Build the rules from the settings.

    Raises:
        ConfigError: a user or group is unknown, a list is invalid, or rules contradict each other.
    """
    rules = AccessRules(
        users=frozenset(_user(name) for name in settings.allow_users),
        groups=frozenset(_group(name) for name in settings.allow_groups),
        reading_users=frozenset(_user(name) for name in settings.read_only_users),
        reading_groups=frozenset(_group(name) for name in settings.read_only_groups),
        deleting_groups=frozenset(_group(name) for name in settings.delete_groups),
        clients=load_clients(settings.curve_clients) if settings.curve_key else None,
    )
    if rules.lists_users and settings.insecure_tcp:
        raise ConfigError("insecure-tcp lets anyone of this machine in: it can't go with lists of users")
    if (rules.lists_users or rules.deleting_groups) and not _sees_all_users():
        raise ConfigError(
            "lists of users need to see who connects, and in this user namespace (PrivateUsers=yes?)"
            " all others look alike"
        )
    return rules


def curve_key_of(settings: Settings) -> KeyPair | None:
    """Load the daemon's own key pair; None without CURVE.

    Raises:
        ConfigError: only one of key and list is set, or the key can't be read.
    """
    if bool(settings.curve_key) != bool(settings.curve_clients):
        raise ConfigError("curve-key and curve-clients go together: without a list, anyone could connect")
    if settings.curve_key and settings.insecure_tcp:
        raise ConfigError("insecure-tcp can't go with curve-key: clients without a key have no identity")
    return load(settings.curve_key) if settings.curve_key else None


def _user(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user {name!r}") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {name!r}") from None


def _sees_all_users(lines: Iterable[str] | None = None) -> bool:
    """Whether the process sees the real number of every user of the machine (user namespaces)."""
    if lines is None:
        try:
            with open("/proc/self/uid_map", encoding="ascii") as file:
                lines = file.readlines()
        except OSError:
            return False
    return any(line.split() == ["0", "0", str(_ALL_IDS)] for line in lines)
