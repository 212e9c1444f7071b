"""What shells call to complete a word, and the scripts that make them do so.

The scripts are click's, but for what it cannot do: a folder, or the first half of `DIM=HOW`, is not
followed by a space; bash, which parts words at `=` and `:`, is told of the whole one; and whatever
goes wrong, nothing is printed into the line that is typed.
"""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    _resolve_context,
    _resolve_incomplete,
    add_completion_class,
    split_arg_string,
)

from taqstore.cli.completed import OPEN
from taqstore.errors import DEBUG

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion kind value
    response=$(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" \\
COMP_BREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r kind value <<< "$completion"
        if [[ $kind == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $kind == 'file' ]]; then
            compopt -o default
        else
            if [[ $kind == 'open' ]]; then
                compopt -o nospace
            fi
            COMPREPLY+=("$value")
        fi
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_SPECIAL = re.compile(r"[^\w@%+=:,./~-]")


class _Silent(ShellComplete):
    """What is wrong with a store is told when it is used, not while it is typed."""

    def complete(self) -> str:
        try:
            return super().complete()
        except Exception:
            if os.environ.get(DEBUG):
                raise
            return ""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """As click has it; but that an option without its value hides no argument before it.

        click's parser stops at such an option, and arguments, which it looks at last, are lost: the
        store could not be asked.
        """
        context = _resolve_context(self.cli, self.ctx_args, self.prog_name, args)
        asked, incomplete = _resolve_incomplete(context, args, incomplete)
        if isinstance(asked, click.Option):
            context = _resolve_context(self.cli, self.ctx_args, self.prog_name, args[:-1])
        return asked.shell_complete(context, incomplete)


class Bash(_Silent, BashComplete):
    """bash, told of the line as it is and given what stands behind its last break."""

    source_template = _BASH

    def source(self) -> str:
        """The script; of bash alone, which need not be the one on the path."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that is begun."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        begun = not re.search(r"(?<!\\)\s$", line)
        self._last = words.pop() if begun and words else ""
        return words, self._last

    def format_completion(self, item: CompletionItem) -> str:
        """Kind and value, of which bash has what stands before the last break already."""
        value = str(item.value)
        if item.type in ("dir", "file"):
            return f"{item.type},{value}"
        breaks = os.environ.get("COMP_BREAKS", "=:")
        known = max(self._last.rfind(one) for one in breaks if one not in " \t\n\"'") + 1
        if self._last.startswith("-") and "=" in self._last:
            known -= self._last.index("=") + 1  # of --name=value click completes the value
        return f"{item.type},{_SPECIAL.sub(_escaped, value[max(known, 0) :])}"


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


class Zsh(_Silent, ZshComplete):
    """zsh, which puts no space behind what is not whole."""

    source_template = ZshComplete.source_template.replace(
        '        elif [[ "$type" == "dir" ]]; then',
        f"""        elif [[ "$type" == "{OPEN}" ]]; then
            compadd -U -S '' -- "$key"
        elif [[ "$type" == "dir" ]]; then""",
    )


class Fish(_Silent, FishComplete):
    """fish, which itself puts no space behind a slash or a sign of equality."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )

    def format_completion(self, item: CompletionItem) -> str:
        """As click has it; to fish all words are alike."""
        kind: Any = "plain" if item.type == OPEN else item.type
        return super().format_completion(CompletionItem(item.value, type=kind, help=item.help))


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def register() -> None:
    """Make click complete for these shells by these classes."""
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)
