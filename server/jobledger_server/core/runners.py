"""Programs that run what their arguments say, and from where on arguments of theirs are nothing but arguments.

The lists are no promise: there are programs that run others and stand in none. What stands in one is closed to values
as far as it can't be told what runs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from jobledger_server.core.powerful_variables import POWERFUL

# Stands for a value in a word; no argument of a process can hold it.
VALUE = "\0"
# What may follow the name of a program: a version, one with what it was built for (`3.11-dbg`, `3.13t`,
# `5.36-x86_64-linux-gnu`), or how and by whom it was built.
SUFFIXES = tuple(
    re.compile(suffix)
    for suffix in (
        r"[-0-9.]+$",
        r"(?<=[A-Za-z])([0-9][0-9.]*|-[0-9]+\.[0-9.]*)[dmtu]{0,3}(-[a-z0-9_]+)*$",
        r"-(dbg|debug|gtk|nox|rs|static)$",
        r"\.(basic|bin|dbg|debug|distrib|exe|gtk3?|hydra|mpich|nox|openbsd|openmpi|orig|real|shadow|static|tiny|traditional)$",
    )
)
# So GNU's tools are called where others have the short name: `gtimeout`.
GNU_PREFIX = re.compile(r"g(nu)?(?=(awk|chroot|env|find|make|nice|nohup|sed|stdbuf|tar|time|timeout|xargs)$)")
DYNAMIC_LINKER = re.compile(r"ld(-.*)?\.so(\.\d+)*")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
NAME_OF_SHELL = re.compile(r"\$\{?0")
NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Front:
    """What may stand between a program and what it runs; where anything else does, nothing is known.

    Attributes:
        alone: options that take no argument, or have it in the same word.
        taking: options whose argument is the next word.
        text: options whose argument is the program. What comes after it are arguments.
        runs_others: programs of `text` that run what their arguments name.
        operands: so many words of its own come before what it runs.
        assigns: words such as `NAME=value` are its own too.
        names_itself: the first argument after a program text is the name that the text has, `$0`.
    """

    alone: re.Pattern[str] = NOTHING
    taking: re.Pattern[str] = NOTHING
    text: re.Pattern[str] = NOTHING
    runs_others: re.Pattern[str] = NOTHING
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
    runs_others=re.compile(
        r"(IPython|accelerate|bdb|cProfile|code|coverage|debugpy|deepspeed|doctest|horovod|idlelib|ipython|jupyter"
        r"|kernprof|memory_profiler|mpi4py|papermill|pdb|pickle|pip|profile|pydoc|pytest|runpy|scalene|timeit"
        r"|torch\.distributed|trace|unittest)(\..*)?"
    ),
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
R accelerate apptainer aprun bioawk bsdtar bsub buildah bun bunx busybox bwrap cargo catatonit cgexec chpst chronic
chroot chrt conda crun csh daemonize dbus-launch dbus-run-session deepspeed deno doas docker dotnet duckdb dumb-init
eatmydata ed elixir elvish emacs entr envdir erl ex expect fakeroot faketime fd find firejail fish flock gdb git gmake
gnuplot go goawk gosu graalpy gradle groovy gsed guile horovodrun hyperfine ibrun iex ipython irb java jruby jshell
jsrun jupyter jython kotlin kubectl less lksh lldb ltrace lxc lxc-attach lxc-execute machinectl make mamba man mariadb
matlab micromamba micropython minijail mongo mongosh mono mosh mpiexec mpirun mvn mycli mysql nc ncat nerdctl ninja nix
nodemon npm npx nsenter nsjail nsys nu numactl octave octave-cli original-awk orterun parallel pdksh pdsh perf php-cgi
pip pipx pkexec pnpm podman poetry posh powershell prlimit proot proxychains prterun psql pwsh qjs qrsh qsub racket
rake rksh rlwrap rsh rsync run-parts runc runghc runhaskell runuser rzsh salloc sbatch sbcl scala scp screen script sed
setarch setpriv setuidgid sftp sg singularity socat softlimit sqlite srun ssh ssh-agent sshpass start-stop-daemon
strace su su-exec sudo swift systemd-inhibit systemd-nspawn systemd-run tar tclsh tcsh tini tmux torchrun torsocks
toybox truffleruby ts-node tsx unbuffer unshare uv uvx valgrind vi vim watch wish xargs xinit xonsh xvfb-run yarn yash
cProfile pdb runpy timeit
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
    """The name under which a program is known here; the word's own last part where it is not."""
    name = PurePosixPath(word).name
    for stem in (name, *(suffix.sub("", name) for suffix in SUFFIXES)):
        for known in (stem, GNU_PREFIX.sub("", stem)):
            if known in FRONTS or known in CLOSED:
                return known
    return name


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
            text = words[index + 1 : index + 2]
            is_known = _is_operand(text) and not front.runs_others.fullmatch(text[0])
            return (own, index + 2) if is_known else (set(), None)
        elif operands and not word.startswith("-"):
            own, operands, index = own | {index}, operands - 1, index + 1
        else:
            return (own, index + 1) if _is_operand([word]) else (set(), None)
    return set(), None


def _is_operand(words: Sequence[str]) -> bool:
    """Whether there is one, which no value can change and no program takes for an option."""
    return bool(words) and VALUE not in words[0] and not words[0].startswith(("-", "+")) and bool(words[0])


def loads_from_working_dir(words: Sequence[str]) -> str | None:
    """The option by which a Python of this argv looks for modules in its working directory first; None: none does."""
    for index, word in enumerate(words):
        if FRONTS.get(_name(word)) is PYTHON and (option := _module_option(words[index + 1 :])):
            return option
    return None


def _module_option(arguments: Sequence[str]) -> str | None:
    """`-m` or `-c`, without an option before it that keeps the working directory out."""
    rest = iter(arguments)
    for word in rest:
        if found := PYTHON.text.match(word):
            return None if {"I", "P"} & {*found[0]} else f"-{found[0][-1]}"
        if PYTHON.taking.fullmatch(word):
            next(rest, None)
        elif not PYTHON.alone.fullmatch(word):
            return None
        if {"I", "P"} & {*re.split("[WX]", word)[0]}:
            return None
    return None
