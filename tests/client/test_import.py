"""What an import of the package brings along. Many agents are processes that end soon."""

import pickle
import subprocess
import sys

import pytest

import perstack_storage


def imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_imports_next_to_nothing() -> None:
    """`typing` and `re` take as long as the interpreter takes to start."""
    assert not {"typing", "re", "orjson"} & imported("import perstack_storage") - imported("pass")


def test_the_client_comes_without_what_it_does_not_use() -> None:
    modules = imported("from perstack_storage import Client, StorageError")
    assert not {"asyncio", "zmq", "perstack_storage._functions", "perstack_storage._wire.keys"} & modules


def test_the_functions_need_neither_asyncio_nor_zmq() -> None:
    modules = imported("from perstack_storage import store_job")
    assert "perstack_storage._sync.client" in modules
    assert not {"asyncio", "zmq", "perstack_storage._async", "perstack_storage._storectl"} & modules


def test_the_package_and_its_protocol_import_no_client() -> None:
    modules = imported("import perstack_storage, perstack_storage.protocol")
    assert not {"perstack_storage._sync", "perstack_storage._async", "asyncio", "zmq", "orjson"} & modules


@pytest.mark.parametrize(
    "name", ["AsyncClient", "AsyncPipeline", "Client", "CurveKeys", "Record", "store_job"]
)
def test_a_name_can_be_imported_before_all_others(name: str) -> None:
    assert "perstack_storage" in imported(f"from perstack_storage import {name}")


def test_the_package_has_all_its_names() -> None:
    for name in perstack_storage.__all__:
        assert getattr(perstack_storage, name) is not None


def test_errors_have_the_name_by_which_they_are_imported() -> None:
    """As a traceback prints it, and as pickle finds it; a program's own error keeps its place."""

    class Own(perstack_storage.StorageError):
        """Of a program."""

    names = [name for name in perstack_storage.__all__ if name.isidentifier()]
    errors = [kind for name in names if isinstance(kind := getattr(perstack_storage, name), type)]
    errors = [kind for kind in errors if issubclass(kind, Exception)]
    assert len(errors) > 10
    assert {kind.__module__ for kind in errors} == {"perstack_storage"}
    assert Own.__module__ == __name__
    error = pickle.loads(pickle.dumps(perstack_storage.ClosedError("closed")))
    assert type(error) is perstack_storage.ClosedError
