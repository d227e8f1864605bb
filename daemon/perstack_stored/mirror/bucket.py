"""A bucket in S3, through obstore: objects are created, read, listed and removed.

It needs the extra `s3`: call `extra.require_library` before this module is imported.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from perstack_stored.config.mirror_url import MirrorUrl
from perstack_stored.errors import ConfigError, StoredError

from .credentials import CredentialsFile
from .tree_fence import Tagged

if TYPE_CHECKING:
    from obstore import UpdateVersion

_CONNECT_SECONDS = "5s"
_REQUEST_SECONDS = "30s"
_LIST_OBJECTS = 1000
IN_FLIGHT = 32
"""Objects of the tree that are put at a time."""
_IS_JSON = {"Content-Type": "application/json"}
_REASON_CHARS_MAX = 200
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_TRANSPORT = re.compile(r"kind: (Connect|Timeout|Request|Interrupted|Decode)")
_WORDS = {
    "Connect": "it can't be reached",
    "Timeout": "no answer in time",
    "Request": "the request was cut",
    "Interrupted": "the connection was cut",
    "Decode": "the answer was cut",
}


class BucketError(StoredError):
    """The bucket does not answer, or refuses. Another try may succeed; the message has no secret."""


class Access(NamedTuple):
    """How a bucket is reached.

    Attributes:
        endpoint: of a server that is not AWS; "" for AWS, or as AWS_ENDPOINT_URL has it.
        credentials: a file, see `credentials.py`; "" for those of the environment or the machine.
    """

    endpoint: str = ""
    credentials: str = ""


class Bucket:
    """The objects of a bucket. Keys are whole: they begin with the prefix of the mirror."""

    def __init__(self, place: MirrorUrl, access: Access) -> None:
        """Make a client; nothing is sent yet.

        Raises:
            ConfigError: the settings can't be used.
        """
        self.place = place
        is_plain = access.endpoint.startswith("http://")
        provider = CredentialsFile(access.credentials) if access.credentials else None
        if provider is not None:
            provider()  # a file that can't be used is named at the start
        try:
            self._store = S3Store(
                place.bucket,
                config={"endpoint": access.endpoint} if access.endpoint else None,
                client_options={
                    "timeout": _REQUEST_SECONDS,
                    "connect_timeout": _CONNECT_SECONDS,
                    **({"allow_http": True} if is_plain else {}),
                },
                retry_config={"max_retries": 0},  # the worker tries again itself, and says so
                credential_provider=provider,
            )
        except (BaseError, ValueError) as error:
            raise ConfigError(f"the settings of the mirror can't be used: {_reason(error)}") from None

    def create(self, key: str, data: bytes) -> bool:
        """Create an object; returns False if there is one with this key, which stays as it is.

        Raises:
            BucketError: it is not known whether the object is there.
        """
        try:
            with _naming(f"can't write {key}"):
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def read(self, key: str, bytes_max: int) -> bytes | None:
        """The bytes of an object; None if there is none, or it is larger than `bytes_max`.

        Raises:
            BucketError: it can't be read.
        """
        found = self.read_tagged(key, bytes_max)
        return None if found is None else found.data

    def read_tagged(self, key: str, bytes_max: int) -> Tagged | None:
        """As `read`, with the tag of this version of the object; "" where the server gives none."""
        with _naming(f"can't read {key}"):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            if found.meta["size"] > bytes_max:
                return None
            return Tagged(bytes(found.bytes()), found.meta["e_tag"] or "")

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Write an object that has this tag, or is not there (None).

        Returns the new tag; None if another version is there, or none, and nothing was written.

        Raises:
            BucketError: it is not known whether it was written.
        """
        mode: UpdateVersion | Literal["create"] = "create" if tag is None else {"e_tag": tag}
        try:
            with _naming(f"can't write {key}"):
                put = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
                return put["e_tag"] or obstore.head(self._store, key)["e_tag"] or ""
        except (AlreadyExistsError, PreconditionError):
            return None

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Put objects by key, in any order, some at a time. Those that are there are replaced.

        Raises:
            BucketError: some of them may not be there.
        """
        if objects:
            with _naming(f"can't write {len(objects)} objects"):
                asyncio.run(self._put_all(objects))

    async def _put_all(self, objects: Mapping[str, bytes]) -> None:
        free = asyncio.Semaphore(IN_FLIGHT)

        async def put(key: str, data: bytes) -> None:
            async with free:
                await obstore.put_async(self._store, key, data, attributes=_IS_JSON, use_multipart=False)

        async with asyncio.TaskGroup() as group:
            for key, data in objects.items():
                group.create_task(put(key, data))

    def remove_below(self, folder: str) -> None:
        """Remove all objects below a folder.

        Raises:
            BucketError: some of them may still be there.
        """
        with _naming(f"can't remove {folder}"):
            for page in obstore.list(self._store, prefix=folder.rstrip("/"), chunk_size=_LIST_OBJECTS):
                self.remove([item["path"] for item in page])

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, as far as they are there.

        Raises:
            BucketError: some of them may still be there.
        """
        if keys:
            with _naming(f"can't remove {len(keys)} objects"), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, list(keys))

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        """Names of the objects in a folder, in order, from the first one behind `after` on.

        Raises:
            BucketError: they can't be listed.
        """
        with _naming(f"can't list {folder}"):
            for page in obstore.list(
                self._store,
                prefix=folder.rstrip("/"),
                offset=folder + after if after else None,
                chunk_size=_LIST_OBJECTS,
            ):
                for item in page:
                    name = item["path"].removeprefix(folder)
                    if "/" not in name:
                        yield name

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder.

        Raises:
            BucketError: they can't be listed.
        """
        with _naming(f"can't list {folder}"):
            found = obstore.list_with_delimiter(self._store, prefix=folder.rstrip("/"))
            return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn an error of the library into a sentence. Its own text repeats whole requests and answers."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError, BucketError):
        raise
    except (BaseError, OSError, ValueError) as error:
        raise BucketError(f"{what}: {_reason(error)}") from None
    except ExceptionGroup as group:  # of tasks
        raise BucketError(f"{what}: {_reason(group.exceptions[0])}") from None


def _reason(error: Exception) -> str:
    """What went wrong, in words that can hold no secret."""
    if isinstance(error, ConfigError):
        return str(error)
    text = str(error)
    code, status, transport = _CODE.search(text), _STATUS.search(text), _TRANSPORT.search(text)
    if code is not None:
        return code[1]
    if status is not None:
        return f"HTTP {status[1]}"
    if transport is not None:
        return _WORDS[transport[1]]
    return type(error).__name__[:_REASON_CHARS_MAX]
