"""Completion scripts for bash, zsh and fish, made from the parser itself. No I/O.

In bash and zsh the names of commands and options stand in the script; ids come from the command `__complete`.
In fish everything does.
"""

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
_SOURCED = """\
# {prog}: completion for bash and zsh. Try it:  source <({prog} completion bash)
if [ -n "${{ZSH_VERSION-}}" ]; then
    autoload -U +X compinit && compinit
    autoload -U +X bashcompinit && bashcompinit
fi

{functions}
complete -F {function} {prog}
"""
# zsh runs the whole file at each Tab, within its completion.
_AUTOLOADED = """\
#compdef {prog}
autoload -U +X bashcompinit && bashcompinit

{functions}
_bash_complete -F {function}
"""
_FUNCTIONS = """\
{function}_ids() {{
    local word
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <({prog} __complete bash "${{COMP_WORDS[@]:1:$COMP_CWORD}}" 2>/dev/null)
}}

{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" words="" number
    COMPREPLY=()
    case $previous in
        {folders}) COMPREPLY=($(compgen -d -- "$current")); return ;;
        {ids}) {function}_ids; return ;;
        {chosen}) {function}_ids; return ;;
        {valued}) return ;;
    esac
    for ((number = 1; number < COMP_CWORD; number++)); do
        case ${{COMP_WORDS[number]}} in
            {folders}|{ids}|{chosen}|{valued}) ((number++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[number]}}; break ;;
        esac
    done
    case $command in
{cases}
    esac
    case $command:$current in
        *:-*) ;;
        {with_ids}) {function}_ids; return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}"""
_FISH = """\
# {prog}: completion for fish. Try it:  {prog} completion fish | source
function {function}
    set -l words (commandline -opc) (commandline -ct)
    {prog} __complete fish $words[2..-1] 2>/dev/null
end
complete -c {prog} -f -a '({function})'
complete -c {prog} -l base-path -r -a '(__fish_complete_directories)'
"""
_FOLDER_OPTIONS = ("--base-path",)
_ID_OPTIONS = ("--job", "--run")
ID_METAVARS = frozenset({"JOB", "RUN", "CHECKPOINT"})
"""Of arguments that are ids."""


def script(parser: argparse.ArgumentParser, shell: str = "bash") -> str:
    """The script for a parser with subcommands. That for bash serves zsh too."""
    function = _function_of(parser)
    if shell == "fish":
        return _FISH.format(prog=parser.prog, function=function)
    return _SOURCED.format(prog=parser.prog, function=function, functions=_functions(parser))


def autoloaded_by_zsh(parser: argparse.ArgumentParser) -> str:
    """The file `_PROGRAM` in a folder of zsh's `fpath`."""
    names = {"prog": parser.prog, "function": _function_of(parser)}
    return _AUTOLOADED.format(functions=_functions(parser), **names)


def _function_of(parser: argparse.ArgumentParser) -> str:
    return "_" + parser.prog.replace("-", "_")


def _functions(parser: argparse.ArgumentParser) -> str:
    commands = commands_of(parser)
    actions = [action for one in (parser, *commands.values()) for action in one._actions]
    chosen = {name for action in actions if action.choices for name in options_of(action)}
    valued = {name for action in actions if action.nargs != 0 for name in options_of(action)}
    cases = [_case('""', [*commands, *_options(parser)])]
    cases += [_case(name, [*_choices(p), *_options(p)]) for name, p in commands.items()]
    return _FUNCTIONS.format(
        prog=parser.prog,
        function=_function_of(parser),
        folders="|".join(_FOLDER_OPTIONS),
        ids="|".join(_ID_OPTIONS),
        chosen="|".join(sorted(chosen)),
        valued="|".join(sorted(valued - chosen - {*_FOLDER_OPTIONS, *_ID_OPTIONS})),
        cases="\n".join(cases),
        with_ids="|".join(f"{name}:*" for name, p in commands.items() if _takes_ids(p)),
    )


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options_of(action: argparse.Action) -> Iterator[str]:
    """The long names of an option."""
    return (name for name in action.option_strings if name.startswith("--"))


def _case(pattern: str, words: list[str]) -> str:
    return f'        {pattern}) words="{" ".join(words)}" ;;'


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from options_of(action)


def _choices(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings and action.choices is not None:
            yield from map(str, action.choices)


def _takes_ids(parser: argparse.ArgumentParser) -> bool:
    return any(not action.option_strings and action.metavar in ID_METAVARS for action in parser._actions)
