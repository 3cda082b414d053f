"""Foreign Python code, contained by bubblewrap: without network, files or other processes, bounded in all.

What runs inside sees the interpreter, its standard library and the system's libraries, read-only; an empty
/tmp of its own; no /proc, no home, no environment but what stands here. It has namespaces of its own, no
capabilities and no way to new ones, cannot start a process or open a socket, and is killed with all that it
has when its time is over or we end. There is no weaker way to run it: where this does not work it is refused.
"""

import contextlib
import functools
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from graftlab.errors import Argument, Refused

EXECUTE = Argument("execute_code", True)

MIB = 2**20
LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64", "/nix/store")
ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/tmp", "PATH": "", "PYTHONHASHSEED": "0"}
"""All of it: nothing of ours is handed on. Sets and dicts of texts have the same order each time."""


class Limits(NamedTuple):
    """What one process may use."""

    cpu_seconds: int = 10
    """Of computing, whatever else the machine does meanwhile."""
    wall_seconds: int = 60
    """Of a clock, for code that waits."""
    memory: int = 1024 * MIB
    """Bytes of its address space."""
    file_size: int = 16 * MIB
    """Bytes of one file."""
    disk: int = 64 * MIB
    """Bytes of /tmp, which is memory."""
    open_files: int = 64
    processes: int = 32
    """Threads, where the kernel counts them: it does not for root. Processes cannot be started at all."""

    def by_name(self) -> dict[str, int]:
        """Return the limits that a process sets itself, by their names in `resource`."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_FSIZE": self.file_size,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_CORE": 0,
        }


def command(
    package: Path, module: str, arguments: Sequence[str], limits: Limits, filter_fd: int
) -> list[str]:
    """Return the command line that runs `main(arguments)` of a package's module inside.

    `filter_fd` is an open file, or pipe, with what `system_call_filter` returns.
    """
    python = Path(sys.executable).resolve()
    found = shutil.which("bwrap")
    assert found is not None, "`check` comes first"
    line = [
        found,
        "--unshare-user",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
    ]
    line += ["--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    line += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for library in map(Path, LIBRARIES):
        if library.is_symlink():
            line += ["--symlink", str(library.readlink()), str(library)]
        elif library.is_dir():
            line += ["--ro-bind", str(library), str(library)]
    own = Path(sys.base_prefix) / "lib"
    if not any(own.is_relative_to(library) for library in LIBRARIES):
        line += ["--ro-bind", str(own), str(own)]
    line += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    line += ["--ro-bind", str(python), str(python), "--ro-bind", str(package), f"/{package.name}"]
    line += ["--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"]
    line += ["--size", str(limits.disk), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    line += ["--seccomp", str(filter_fd), "--", str(python), "-B", "-s", "-S", "-P", "-c"]
    return [*line, _boot(package.name, module, limits), *arguments]


def _boot(package: str, module: str, limits: Limits) -> str:
    """Return what runs first inside: the limits are set, then `main` is called with the arguments."""
    return (
        "import resource, sys\n"
        f"for name, most in {limits.by_name()!r}.items():\n"
        "    resource.setrlimit(getattr(resource, name), (most, most))\n"
        "sys.path.insert(0, '/')\n"
        f"from {package} import {module}\n"
        f"{module}.main(sys.argv[1:])\n"
    )


@contextlib.contextmanager
def started(
    package: Path,
    module: str,
    arguments: Sequence[str] = (),
    *,
    limits: Limits,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start `main(arguments)` of a package's module inside; on leaving, nothing of it is left.

    `package` is a folder of Python files without other imports than the standard library's.

    Raises:
        Refused: there is no sandbox here.
    """
    check()
    with _filter() as filter_fd:
        process = subprocess.Popen(
            command(package, module, arguments, limits, filter_fd),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=(*pass_fds, filter_fd),
            env=ENVIRONMENT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()  # takes the process with number 1 inside with it, and so all others there
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    """Yield the reading end of a pipe with the filter of system calls in it, for `command`."""
    reading, writing = os.pipe()
    try:
        os.write(writing, system_call_filter(platform.machine()))  # fits into a pipe of one page
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def check() -> None:
    """Refuse to go on where foreign code cannot be contained.

    Raises:
        Refused: this is no Linux, or bubblewrap is missing or does not work, with the reason.
    """
    if why := _missing():
        raise Refused(
            f"code that a model wrote is run in a sandbox only, and there is none here: {why}.",
            ("Do without running it: without task.execute_code, and without ", EXECUTE, "."),
            ("Or use a machine where `bwrap --ro-bind / / --unshare-all true` works.",),
            kind="no_sandbox",
        )


@functools.cache
def _missing() -> str | None:
    """Return why there is no sandbox; None where a trial run of it worked."""
    if sys.platform != "linux":
        return f"bubblewrap is for Linux, this is {sys.platform}"
    if platform.machine() not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        return f"the filter of system calls is written for {known}, not {platform.machine()}"
    if shutil.which("bwrap") is None:
        return "the program bwrap (package bubblewrap) is not installed"
    with _filter() as filter_fd, tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "trial"
        package.mkdir()
        (package / "one.py").write_text("def main(arguments): print('inside')\n")
        found = subprocess.run(
            command(package, "one", (), Limits(), filter_fd),
            capture_output=True,
            env=ENVIRONMENT,
            pass_fds=(filter_fd,),
            timeout=60,
            check=False,
        )
    if found.returncode == 0 and found.stdout == b"inside\n":
        return None
    said = found.stderr.decode(errors="replace").strip()[-300:]
    return f"bwrap does not work ({said or f'exit code {found.returncode}'})"


# seccomp(2): numbers of system calls, from the kernel's tables (asm/unistd_64.h, asm-generic/unistd.h).
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h
DENIED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),  # and clone below: processes
    "vfork": (58, None),
    "socket": (41, 198),
    "shmget": (29, 194),  # memory that RLIMIT_AS does not count
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
"""Numbers in the order of `ARCHITECTURES`; None where there is no such call."""
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_*, linux/seccomp.h
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x00010000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def system_call_filter(machine: str) -> bytes:
    """Return the BPF program by which the kernel denies system calls (EPERM), for `bwrap --seccomp`.

    No processes (threads may be), no sockets, no memory that RLIMIT_AS does not count, none of the calls
    that a program has no use for and that kernels have been broken through.
    """
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":  # x32 calls have numbers of their own
        code += [(_JUMP_IF_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    # clone3's arguments cannot be read here: without it, libraries take clone.
    code += [(_JUMP_IF_EQUAL, 0, 1, CLONE3), (_RETURN, 0, 0, _FAIL | _ENOSYS)]
    place = list(ARCHITECTURES).index(machine)
    for numbers in DENIED.values():
        if (number := numbers[place]) is not None:
            code += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | _EPERM)]
    code += [
        (_JUMP_IF_EQUAL, 0, 3, CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _FAIL | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
