"""The commands that delete: the first says what would go, and asks."""

import sys
import time
from itertools import count
from typing import Any

from perstack_storage import Size
from perstack_storage._core.escape import escaped
from perstack_storage._core.masking import masked
from perstack_storage._storectl import ids, runs
from perstack_storage._storectl.call import OK, REFUSED, USAGE, Call, Missing, complain
from perstack_storage._views.settings import SETTING_OPS, is_redaction, setting_in
from perstack_storage._views.units import number, size_of

_COUNTS = (
    ("jobs", "job"),
    ("runs", "run"),
    ("runSettings", "setting"),
    ("checkpoints", "checkpoint"),
    ("events", "event"),
)
_POLL_SECONDS = 0.25
_POLLS_PER_LOOK = 8  # at what holds erasing back
_YES = frozenset({"y", "yes"})


def delete(call: Call) -> int:
    """Delete a job or run, after a question on a terminal, or with --yes."""
    client, given, out = call.client, call.given, call.out
    asks = not given.yes
    if asks and not (sys.stdin.isatty() and sys.stdout.isatty()):
        complain("this is no terminal on which to ask: --yes deletes without a question; nothing was deleted")
        return USAGE
    job, run = given.job_id, given.run
    if asks:  # a script must name it in full: a beginning may fit another one tomorrow
        job = ids.job_id(client, job)
        run = None if run is None else runs.run_id(client, job, run)
    size = client.size_of(job, run)
    if not any(size.values()):
        raise Missing(f"nothing is stored of {_name(job, run)}")
    if asks and not _confirmed(call, f"delete {_name(job, run)}: {_said(size)}"):
        complain("nothing was deleted")
        return REFUSED
    position = client.delete_job(job, given.why) if run is None else client.delete_run(job, run, given.why)
    if out.as_json:
        named = {"jobId": job} if run is None else {"jobId": job, "runId": run}
        out.details({"position": position, **named, **size})
    else:
        out.line(f"deleted {escaped(_name(job, run))} at position {position}: {_said(size)}", flush=True)
    return _await_erased(call, position) if given.wait_erased else OK


def redact(call: Call) -> int:
    """Mask the secrets of a run's setting, for good."""
    client, given, out = call.client, call.given, call.out
    records = client.follow(job_id=given.job_id, run_id=given.run_id, ops=SETTING_OPS, idle_s=0)
    setting: Any = None
    has_secrets = False
    for record in records:
        value = setting_in(record)
        has_secrets = has_secrets or masked(value) != value
        if is_redaction(record) or setting is None:
            setting = value
    if setting is None:
        raise Missing(f"no setting is stored of {_name(given.job_id, given.run_id)}")
    position = None
    if has_secrets:
        position = client.redact_run_setting(_of_whole_characters(masked(setting)), given.why)
    if out.as_json:
        out.details({"position": position, "jobId": given.job_id, "runId": given.run_id})
    elif position is None:
        out.line("its secrets are masked already; nothing was stored")
    else:
        out.line(f"masked the secrets of {escaped(_name(given.job_id, given.run_id))} at position {position}")
    return _await_erased(call, position) if given.wait_erased and position is not None else OK


def _of_whole_characters(setting: Any) -> Any:
    """The setting, changed: half a character (a lone surrogate), which a redaction can't hold, is U+FFFD."""
    todo = [setting]
    while todo:
        part = todo.pop()
        for key, item in list(enumerate(part) if isinstance(part, list) else part.items()):
            if isinstance(item, str):
                part[key] = _of_utf16(item)
            elif isinstance(item, (dict, list)):
                todo.append(item)
            if isinstance(key, str) and key != _of_utf16(key):
                part[_of_utf16(key)] = part.pop(key)
    return setting


def _of_utf16(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _await_erased(call: Call, position: int) -> int:
    """Return when a deletion is erased: its bytes are gone from the daemon's files."""
    held_back = ""
    for poll in count():
        if poll % _POLLS_PER_LOOK == 0:
            # An older daemon does not say.
            fault = str(call.client.stats()["deletions"].get("fault", ""))
            if fault and fault != held_back:
                complain(f"erasing is held back, and waits: {fault}")
            held_back = fault
        listed = call.client.deletions(after=position - 1, limit=1)
        # A redaction that a later deletion removes is not listed any more, and is erased with the rest.
        if not listed or listed[0]["position"] != position or listed[0]["erased"]:
            break
        time.sleep(_POLL_SECONDS)
    if not call.out.as_json:
        call.out.line("erased: no file of the daemon holds it any more")
    return OK


def _confirmed(call: Call, sentence: str) -> bool:
    call.out.line(escaped(sentence), flush=True)
    sys.stdout.write("It can't be undone. Delete? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in _YES


def _name(job: str, run: str | None) -> str:
    return f"job {job}" if run is None else f"run {run} of job {job}"


def _said(size: Size) -> str:
    """What goes: counts and bytes."""
    counts: list[str] = []
    for key, word in _COUNTS:
        stored = int(size[key])  # type: ignore[literal-required]  # a name of the table above
        if stored:
            counts.append(f"{number(stored)} {word}{'' if stored == 1 else 's'}")
    return f"{', '.join(counts)}; {size_of(size['bytes'])}"
