"""Sources of the settings' values: flags over environment over the settings file over defaults."""

import contextlib
import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perstack_storage.protocol import (
    PERSTACK_BASE_VARIABLE,
    escaped,
    resolve_base,
    resolve_endpoint,
    split_endpoints,
)
from perstack_stored.errors import ConfigError, start_error

from .settings import ITEMS, Item, Settings, key_of, refuse_odd, reloads, show, variable_of

CONFIG_VARIABLE = "PERSTACK_STORED_CONFIG"
DEFAULT = "default"
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_KINDS = {
    "integer": "an integer",
    "mode": 'a string with an octal mode, such as "0640"',
    "flag": "true or false",
    "word": "a string",
    "words": "a list of strings",
}
_LIST_ENDS = re.compile(r"[,\s]+")


@dataclass(frozen=True)
class Config:
    """The settings in force, and the source of each value."""

    settings: Settings
    origins: Mapping[str, str]

    @property
    def base(self) -> str:
        """Absolute path of the base.

        Raises:
            ConfigError: the path can't be used.
            StartFailedError: the working directory is not known at the moment.
        """
        try:
            base = resolve_base(self.settings.base_path or None)
        except OSError as error:
            raise start_error("can't find the base from the working directory", error) from error
        refuse_odd(base, "the path of the base")
        return base

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints to serve.

        Raises:
            ConfigError: one of them is a list, as clients take it.
            EndpointError: there is none, and none can be derived from the base.
        """
        for text in self.settings.bind:
            if len(split_endpoints(text)) > 1:
                raise ConfigError(
                    f"bind, from {self.origins['bind']}: {escaped(text)} is a list of daemons, as clients"
                    " take it; a daemon takes its own endpoints one by one: give --bind once for each, or"
                    " make each an item of bind in the settings file"
                )
        return self.settings.bind or (resolve_endpoint(None, self.base),)

    def resolved(self) -> "Config":
        """The same with resolved base and endpoints."""
        settings = dataclasses.replace(self.settings, base_path=self.base, bind=self.endpoints)
        return Config(settings, self.origins)

    def differing(self, other: "Config") -> list[str]:
        """Names of the settings whose values differ."""
        return [name for name in ITEMS if getattr(self.settings, name) != getattr(other.settings, name)]


class Sources:
    """The sources given at the start; the file is read again each time.

    Args:
        path: the settings file, None without one.
        flags: values of given flags, by the names of the settings.
        environment: the environment variables.
    """

    def __init__(self, path: str | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        chosen = path or environment.get(CONFIG_VARIABLE)
        self.path = chosen or None
        if chosen:
            with contextlib.suppress(OSError):  # the working directory is gone: `read` reports it
                self.path = os.path.abspath(chosen)
        self._flags = flags
        self._environment = environment

    def read(self) -> Config:
        """Read the settings that must be in force now.

        Raises:
            ConfigError: a key is unknown, a value is invalid, or the file can't be read.
            StartFailedError: it can't be read at the moment.
        """
        values: dict[str, Any] = {}
        origins = dict.fromkeys(ITEMS, DEFAULT)
        if self.path is not None:
            refuse_odd(self.path, "the path of the settings file")
            values.update(_read_file(self.path))
            origins.update(dict.fromkeys(values, f"file {self.path}"))
        for name, item in ITEMS.items():
            if name in self._flags:
                values[name] = self._flags[name]
                origins[name] = f"flag --{key_of(item)}"
            elif text := self._environment.get(variable_of(item)):
                values[name] = _from_text(item, text)
                origins[name] = f"environment {variable_of(item)}"
        if not values.get("base_path") and (text := self._environment.get(PERSTACK_BASE_VARIABLE)):
            values["base_path"] = text
            origins["base_path"] = f"environment {PERSTACK_BASE_VARIABLE}"
        return Config(Settings(**values), origins)


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise start_error(f"can't read the settings file {path}", error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"can't read the settings file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    by_key = {key_of(item): item for item in ITEMS.values()}
    values = {}
    for key, value in table.items():
        item = by_key.get(key)
        if item is None:
            raise ConfigError(f"{path}: there is no setting {key!r}{_near(key, list(by_key))}")
        values[item.name] = _from_file(item, value, path)
    return values


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _from_file(item: Item, value: Any, path: str) -> Any:
    """Convert a value of the file to its type. Errors do not repeat it: it may be a secret, by mistake."""
    kind = item.metadata["kind"]
    where = f"{path}: {key_of(item)}"
    right = {
        "integer": type(value) is int,
        "mode": isinstance(value, str),
        "flag": isinstance(value, bool),
        "word": isinstance(value, str),
        "choice": isinstance(value, str),
        "words": isinstance(value, list) and all(isinstance(word, str) for word in value),
    }[kind]
    if not right:
        raise ConfigError(f"{where} must be {_kind(item)}")
    if kind in {"mode", "choice"}:
        return _parse(item, value, where)
    return tuple(value) if kind == "words" else value


def _from_text(item: Item, text: str) -> Any:
    return _parse(item, text, f"{variable_of(item)} ({key_of(item)})")


def _parse(item: Item, text: str, where: str) -> Any:
    """Parse a value from text, as in the environment."""
    kind = item.metadata["kind"]
    try:
        if kind == "integer":
            return int(text)
        if kind == "mode":
            return int(text, 8)
    except ValueError:
        pass
    if kind == "flag" and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if kind == "choice" and text in item.metadata["choices"]:
        return text
    if kind == "word":
        return text
    if kind == "words":
        # An endpoint may contain spaces: the variable, which clients read too, holds one endpoint.
        return (text,) if item.metadata["environment"] else tuple(filter(None, _LIST_ENDS.split(text)))
    raise ConfigError(f"{where} must be {_kind(item)}")


def _kind(item: Item) -> str:
    if item.metadata["kind"] == "choice":
        return "one of " + ", ".join(item.metadata["choices"])
    return _KINDS[item.metadata["kind"]]


def describe(config: Config) -> str:
    """The settings in force as a settings file, each with its source."""
    lines = []
    for name, item in ITEMS.items():
        assignment = f"{key_of(item)} = {show(item, getattr(config.settings, name))}"
        lines.append(f"{assignment:<50}  # {escaped(config.origins[name])}\n")
    return "".join(lines)


def sample() -> str:
    """A settings file that sets nothing and describes everything."""
    lines = [
        "# Settings of perstack-stored. What is commented out is the default. An environment variable",
        "# (PERSTACK_STORED_READ_SECONDS for read-seconds) goes over this file, a flag of serve over both.",
        "# `perstack-stored config --config FILE` prints what is in force. SIGHUP takes up a new value where",
        "# it says [reload]; other values need a restart.",
    ]
    for item in ITEMS.values():
        bounds = item.metadata
        about = bounds["help"][:1].upper() + bounds["help"][1:] + "."
        if "least" in bounds:
            about += f" {show(item, bounds['least'])} to {show(item, bounds['most'])}."
        if "choices" in bounds:
            about += f" One of {', '.join(bounds['choices'])}."
        if reloads(item):
            about += " [reload]"
        lines += ["", f"# {about}", f"#{key_of(item)} = {show(item, item.default)}"]
    return "\n".join(lines) + "\n"


def reloaded(now: Config, wanted: Config) -> tuple[Config, list[str], list[str]]:
    """Return what is in force after a reload, the keys that changed, and those that need a restart."""
    taken: list[str] = []
    left: list[str] = []
    for name in now.differing(wanted):
        (taken if reloads(ITEMS[name]) else left).append(name)
    settings = dataclasses.replace(now.settings, **{name: getattr(wanted.settings, name) for name in taken})
    origins = {name: (now if name in left else wanted).origins[name] for name in ITEMS}
    keys = [[key_of(ITEMS[name]) for name in names] for names in (taken, left)]
    return Config(settings, origins), keys[0], keys[1]
