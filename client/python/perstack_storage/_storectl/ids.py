"""Ids as people type them: whole, or a beginning that fits one only. Else the names that may be meant."""

import difflib
import os.path
from collections.abc import Iterable, Iterator
from itertools import pairwise

from perstack_storage import CheckpointNotFound, Client
from perstack_storage._core.escape import escaped
from perstack_storage._storectl.call import PAGE_ITEMS, Missing

HINTS_MAX = 10
_NEAR = 0.6  # as difflib has it


def resolved(kind: str, given: str, known: Iterable[str]) -> str:
    """The id that is meant.

    Raises:
        Missing: none begins like this, or several do; with their names.
    """
    names = list(dict.fromkeys(known))
    if given in names:
        return given
    fitting = [name for name in names if name.startswith(given)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise Missing(f"{len(fitting)} {kind}s begin with {given}:", hints(fitting))
    raise Missing(f"{kind} not found: {given}{did_you_mean(given, names)}")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a sentence with the name that is most like the one given, or nothing."""
    near = difflib.get_close_matches(given, list(known), 1, _NEAR)
    return f"; did you mean {near[0]!r}?" if near else ""


def shortest(names: Iterable[str], least: int) -> dict[str, str]:
    """Each name cut to the beginning by which it is known among these, and to at least `least` characters."""
    ordered = sorted(set(names))
    lengths = [least] * len(ordered)
    for number, pair in enumerate(pairwise(ordered)):
        same = len(os.path.commonprefix(pair))  # noqa: RUF071 - these are no paths
        lengths[number] = max(lengths[number], same + 1)
        lengths[number + 1] = max(lengths[number + 1], same + 1)
    return {name: name[:length] for name, length in zip(ordered, lengths, strict=True)}


def job_ids(client: Client) -> Iterator[str]:
    """The ids of all jobs of which anything is stored, newest first."""
    after = None
    while True:
        page = client.list_jobs(PAGE_ITEMS, after)
        yield from (job["jobId"] for job in page)
        after = page.next
        if after is None:
            return


def job_id(client: Client, given: str | None) -> str:
    """The id of the job that is meant; of the newest one where none is given.

    Raises:
        Missing: there is none, or several fit.
    """
    if given is None:
        newest = client.list_jobs(1)
        if not newest:
            raise Missing("no job is stored")
        return newest[0]["jobId"]
    if client.list_runs(1, job_id=given) or client.retrieve_job(given) is not None:
        return given
    return resolved("job", given, job_ids(client))


def checkpoint_id(client: Client, job: str, given: str) -> str:
    """The id of the checkpoint of a job that is meant.

    Raises:
        Missing: there is none, or several fit.
    """
    try:
        return client.retrieve_checkpoint(job, given)["id"]
    except CheckpointNotFound:
        return resolved("checkpoint", given, checkpoint_ids(client, job))


def checkpoint_ids(client: Client, job: str) -> Iterator[str]:
    """The ids of the checkpoints of a job, by step."""
    after = None
    while True:
        page = client.get_checkpoints_by_job_id(job, PAGE_ITEMS, after, omit=("messages",))
        yield from (checkpoint["id"] for checkpoint in page)
        after = page.next
        if after is None:
            return


def hints(names: list[str]) -> tuple[str, ...]:
    """A line for each of the first names, and one that counts the others."""
    shown = tuple(f"  {escaped(name)}" for name in names[:HINTS_MAX])
    more = len(names) - HINTS_MAX
    return (*shown, f"  and {more} more") if more > 0 else shown
