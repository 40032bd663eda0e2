"""Programs that run what their arguments say, and from where on arguments of theirs are nothing but arguments.

The lists are no promise: there are programs that run others and stand in none. What stands in one is closed to values
as far as it can't be told what runs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

# Stands for a value in a word; no argument of a process can hold it.
VALUE = "\0"
VERSION = re.compile(r"[-0-9.]+$")
DYNAMIC_LINKER = re.compile(r"ld(-.*)?\.so(\.\d+)*")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
NAME_OF_SHELL = re.compile(r"\$\{?0")
# With these whoever sets them could have any code run. The list is not complete, and can't be.
POWERFUL = re.compile(
    r"(LD|DYLD)_.*|.*_LIBRARY_PATH|PATH|HOME|IFS|ENV|BASH_ENV|BASH_FUNC_.*|PS4|SHELLOPTS|ZDOTDIR|GCONV_PATH|EDITOR"
    r"|VISUAL|PAGER|PYTHON(PATH|HOME|STARTUP|USERBASE|WARNINGS|BREAKPOINT|PLATLIBDIR|PYCACHEPREFIX|EXECUTABLE)"
    r"|PERL5(LIB|OPT|DB)|PERLLIB|RUBY(OPT|LIB)|NODE_(OPTIONS|PATH)|(JAVA_TOOL|_JAVA|JDK_JAVA)_OPTIONS"
    r"|GIT_(SSH.*|EXEC_PATH|CONFIG.*|EDITOR|PAGER|EXTERNAL_DIFF|ASKPASS|PROXY_COMMAND)"
)
NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Front:
    """What may stand between a program and what it runs; where anything else does, nothing is known.

    Attributes:
        alone: options that take no argument, or have it in the same word.
        taking: options whose argument is the next word.
        text: options whose argument is the program. What comes after it are arguments.
        operands: so many words of its own come before what it runs.
        assigns: words such as `NAME=value` are its own too.
        names_itself: the first argument after a program text is the name that the text has, `$0`.
    """

    alone: re.Pattern[str] = NOTHING
    taking: re.Pattern[str] = NOTHING
    text: re.Pattern[str] = NOTHING
    operands: int = 0
    assigns: bool = False
    names_itself: bool = False


SHELL = Front(
    alone=re.compile(r"-[aefhlnuvx]+|--(login|noprofile|norc|posix)"),
    taking=re.compile(r"-[aefhlnuvx]*o"),
    text=re.compile(r"-[aefhlnuvx]*c"),
    names_itself=True,
)
PYTHON = Front(
    alone=re.compile(r"-[bBdEIOPqsSuv]+|-[bBdEIOPqsSuv]*[WX].+", re.DOTALL),
    taking=re.compile(r"-[bBdEIOPqsSuv]*[WX]"),
    text=re.compile(r"-[bBdEIOPqsSuv]*[cm]"),
)
# Without options between the first argument is the script; all that they know is more than a list can hold.
SCRIPT_FIRST = Front()
FRONTS = {
    **dict.fromkeys(("ash", "bash", "dash", "ksh", "mksh", "rbash", "sh", "zsh"), SHELL),
    **dict.fromkeys(("pypy", "python"), PYTHON),
    **dict.fromkeys(("Rscript", "julia", "lua", "luajit", "node", "nodejs", "perl", "php", "ruby"), SCRIPT_FIRST),
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), SCRIPT_FIRST),
    "env": Front(
        alone=re.compile(r"-[0iv]+|--(ignore-environment|null|debug)"),
        taking=re.compile(r"-[uC]|--(unset|chdir)"),
        assigns=True,
    ),
    "ionice": Front(alone=re.compile(r"-[cn]\d|-t"), taking=re.compile(r"-[cn]")),
    "nice": Front(alone=re.compile(r"-n?-?\d+|--adjustment=.+"), taking=re.compile(r"-n|--adjustment")),
    "nohup": Front(),
    "setsid": Front(alone=re.compile(r"-[cfw]+")),
    "stdbuf": Front(alone=re.compile(r"-[eio].+"), taking=re.compile(r"-[eio]")),
    "taskset": Front(alone=re.compile(r"-[ac]+"), operands=1),
    "time": Front(alone=re.compile(r"-[apqv]+"), taking=re.compile(r"-[fo]")),
    "timeout": Front(
        alone=re.compile(r"-v|--(foreground|preserve-status|verbose)|--(signal|kill-after)=.+"),
        taking=re.compile(r"-[ks]"),
        operands=1,
    ),
}
# Of these it is not known what of their arguments runs: no value stands behind them. The last are modules of Python's.
CLOSED_NAMES = """
R apptainer bun bunx busybox bwrap cargo chpst chronic chroot chrt conda crun csh deno docker doas ed elvish emacs ex
expect fakeroot fd find firejail fish flock gdb git gmake go gosu gsed irb java jshell kubectl less lldb ltrace lxc make
mamba man micromamba mosh mysql nc ncat nerdctl ninja nix npm npx nsenter nu numactl parallel perf pip pipx pkexec pnpm
podman poetry powershell prlimit proot psql pwsh rake rsh rsync run-parts runc runuser scp screen script sed setarch
setpriv sftp singularity socat sqlite srun ssh sshpass start-stop-daemon strace su su-exec sudo systemd-run tar tclsh
tcsh tmux toybox tsx unshare uv uvx valgrind vi vim watch xargs xonsh yarn
cProfile ipython pdb runpy timeit
"""
CLOSED = frozenset(CLOSED_NAMES.split())


def closed_words(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Words that must not have a value in them, each after the program that may run it, by their indices.

    A program is looked for everywhere, since what is not known may run what its arguments name.

    Args:
        words: an argv, with `VALUE` in place of values.
    """
    name_of_text = None
    for index, word in enumerate(words):
        if index == name_of_text or not _runs_others(word):
            continue
        own, first = _arguments(words, index)
        for other in range(index + 1, len(words) if first is None else first):
            if VALUE in words[other] and other not in own:
                yield index, other
        if first is not None and _takes_a_name(words, index, first):
            name_of_text = first


def _name(word: str) -> str:
    name = PurePosixPath(word).name
    return name if name in CLOSED else VERSION.sub("", name)


def _runs_others(word: str) -> bool:
    return (name := _name(word)) in FRONTS or name in CLOSED or bool(DYNAMIC_LINKER.fullmatch(PurePosixPath(word).name))


def _takes_a_name(words: Sequence[str], program: int, first: int) -> bool:
    """Whether the first argument is no program although it may be called like one, as in `sh -c TEXT sh ARGUMENT`."""
    front = FRONTS[_name(words[program])]
    is_text = first - program > 2 and front.text.fullmatch(words[first - 2])
    return front.names_itself and bool(is_text) and not NAME_OF_SHELL.search(words[first - 1])


def _arguments(words: Sequence[str], program: int) -> tuple[set[int], int | None]:
    """Words of the program's own in which a value does no harm, and the first word behind what it runs.

    None for the latter where it can't be told what runs: then nothing is harmless.
    """
    front = FRONTS.get(_name(words[program]))
    if front is None:
        return set(), None
    own, operands, index = set[int](), front.operands, program + 1
    while index < len(words):
        word = words[index]
        if front.assigns and (assigned := ASSIGNMENT.match(word)):
            own |= set() if POWERFUL.fullmatch(assigned[1]) else {index}
            index += 1
        elif front.alone.fullmatch(word):
            index += 1
        elif front.taking.fullmatch(word):
            index += 2
        elif front.text.fullmatch(word):
            return (own, index + 2) if _is_operand(words[index + 1 : index + 2]) else (set(), None)
        elif operands and not word.startswith("-"):
            own, operands, index = own | {index}, operands - 1, index + 1
        else:
            return (own, index + 1) if _is_operand([word]) else (set(), None)
    return set(), None


def _is_operand(words: Sequence[str]) -> bool:
    """Whether there is one, which no value can change and no program takes for an option."""
    return bool(words) and VALUE not in words[0] and not words[0].startswith(("-", "+")) and bool(words[0])
