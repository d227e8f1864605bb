"""Completion for bash, and for zsh through bashcompinit, made from the parser itself. No I/O."""

import argparse
from collections.abc import Iterator

_SCRIPT = """\
# {prog}: completion for bash and zsh. Try it:  source <({prog} completion bash)
if [ -n "${{ZSH_VERSION-}}" ]; then
    autoload -U +X compinit && compinit
    autoload -U +X bashcompinit && bashcompinit
fi

{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" words="" number
    COMPREPLY=()
    case $previous in
        {folders}) COMPREPLY=($(compgen -d -- "$current")); return ;;
        {valued}) return ;;
    esac
    for ((number = 1; number < COMP_CWORD; number++)); do
        case ${{COMP_WORDS[number]}} in
            {folders}|{valued}) ((number++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[number]}}; break ;;
        esac
    done
    case $command in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F {function} {prog}
"""
_FOLDER_OPTIONS = ("--base-path",)


def script(parser: argparse.ArgumentParser) -> str:
    """The script for a parser with subcommands."""
    commands = _commands(parser)
    parsers = [parser, *commands.values()]
    valued = sorted({name for p in parsers for name in _options(p, valued=True)} - set(_FOLDER_OPTIONS))
    cases = [_case('""', [*commands, *_options(parser)])]
    cases += [_case(name, [*_choices(p), *_options(p)]) for name, p in commands.items()]
    return _SCRIPT.format(
        prog=parser.prog,
        function="_" + parser.prog.replace("-", "_"),
        folders="|".join(_FOLDER_OPTIONS),
        valued="|".join(valued),
        cases="\n".join(cases),
    )


def _case(pattern: str, words: list[str]) -> str:
    return f'        {pattern}) words="{" ".join(words)}" ;;'


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser, *, valued: bool = False) -> Iterator[str]:
    """Long names of the options; with `valued` of those only that take a value."""
    for action in parser._actions:
        if action.nargs != 0 or not valued:
            yield from (name for name in action.option_strings if name.startswith("--"))


def _choices(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings and action.choices is not None:
            yield from map(str, action.choices)
