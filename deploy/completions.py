"""Writes the completion scripts of both commands, for `make install` and the packages.

usage: completions.py FOLDER

Below FOLDER they have the places where bash, zsh and fish look for them under PREFIX/share.
"""

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from perstack_storage._storectl import completion
from perstack_storage._storectl.arguments import make_parser
from perstack_stored.cli.main import main as stored

BASH = "bash-completion/completions"
# zsh of Debian looks here for packages, and in /usr/local/share/zsh/site-functions for what is local.
ZSH_OF_PACKAGES, ZSH_LOCAL = "zsh/vendor-completions", "zsh/site-functions"
FISH = "fish/vendor_completions.d"
_CLICK: tuple[click.Command, dict[str, Any], str, str] = (
    stored,
    {},
    "perstack-stored",
    "_PERSTACK_STORED_COMPLETE",
)


def scripts() -> dict[str, str]:
    """The scripts, by their path below the folder."""
    parser = make_parser()
    of_zsh = {"perstack-storectl": completion.autoloaded_by_zsh(parser), "perstack-stored": _stored_for_zsh()}
    found = {
        f"{folder}/_{name}": text for name, text in of_zsh.items() for folder in (ZSH_OF_PACKAGES, ZSH_LOCAL)
    }
    found[f"{BASH}/perstack-storectl"] = completion.script(parser, "bash")
    found[f"{BASH}/perstack-stored"] = BashComplete(*_CLICK).source()
    found[f"{FISH}/perstack-storectl.fish"] = completion.script(parser, "fish")
    found[f"{FISH}/perstack-stored.fish"] = FishComplete(*_CLICK).source()
    return found


def _stored_for_zsh() -> str:
    """Click's script, which completes at the first Tab only where it is autoloaded."""
    functions, end = ZshComplete(*_CLICK).source().split("if [[ $zsh_eval_context", 1)
    call = '_perstack_stored_completion "$@"\n'
    assert call in end
    return functions + call


def main(folder: Path) -> None:
    """Write them all."""
    for name, text in scripts().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
