"""Programs that a model wrote: right ones pass, wrong ones do not, hostile ones reach nothing.

Slow: hostile programs are waited for until their time is over.
"""

import gzip
import json
import platform
import re
import struct
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from graftlab import programs
from graftlab.errors import DataError, Refused
from graftlab.programs import sandbox
from graftlab.programs.sandbox import Limits

DATA = Path(__file__).parents[2] / "shared" / "data"
SHORT = Limits(cpu_seconds=2, wall_seconds=60)
LABEL = {
    "prompt": 'import math\n\n\ndef double(x):\n    """Return twice x.\n    """\n',
    "test": textwrap.dedent("""
        def check(candidate):
            assert candidate(2) == 4
            assert candidate([1]) == [1, 1]
            assert abs(candidate(0.5) - 1) < 1e-6
            assert not math.isclose(candidate(1.0), 1.0)
    """),
    "entry_point": "double",
}


@pytest.fixture
def inside():
    if why := sandbox._missing():
        pytest.skip(f"there is no sandbox here: {why}")


def passes(program, label=LABEL, limits=SHORT):
    return programs.judge(programs.job_of(label, program), limits)


def told(body, limits=SHORT):
    """What `probe`, with this body, returns inside."""
    code = "import os\ndef probe():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    label = {"test_list": ["found = probe()\nassert False, repr(found)"]}
    verdict = passes(code, label, limits)
    assert verdict.reason.startswith("AssertionError: "), verdict
    return verdict.reason.removeprefix("AssertionError: ")


# Right and wrong programs.


@pytest.mark.parametrize(
    "program",
    [
        "    return x + x\n",
        "```python\ndef double(x):\n    return 2 * x\n```\nThat is it.",
        "Sure:\n```\n    return 2 * x\n",  # the fence was never closed
    ],
)
@pytest.mark.usefixtures("inside")
def test_a_right_program_passes_as_a_body_or_whole(program):
    assert passes(program) == (True, "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("    return x\n", "AssertionError"),
        ("    return (\n", "SyntaxError"),
        ("    return y\n", "NameError"),
        ("    return x.double()\n", "AttributeError"),
        ("    import numpy\n    return x + x\n", "ModuleNotFoundError"),
        ("    return x + x\nraise ValueError('no')\n", "ValueError: no"),
        ("def other(x):\n    return x + x\n", "AssertionError"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_a_wrong_program_does_not_pass_and_the_reason_is_told(program, reason):
    verdict = passes(program)
    assert not verdict.passed
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        (["assert sum(10, 15) == 25"], "def sum(a, b):\n    return a + b"),
        (
            ["assert set(f([3, 1])) == set((1, 3))", "assert sorted(f([2, 1])) == [1, 2]"],
            "def f(x):\n    return tuple(x)\ndef sorted(x):\n    return None",
        ),
        (["assert f(1) == (1, {'a': [2.5, None]}, {3}, b'x', 1j)"],
         "def f(x):\n    return x, {'a': [2.5, None]}, {3}, b'x', 1j"),
        (["assert list(f(3)) == [0, 1, 2]"], "def f(n):\n    yield from range(n)"),
        (["assert f(5) == 2 ** 20000"], "def f(n):\n    return 1 << 20000"),
        (["assert math.isclose(f(), 0.5)"], "import math\ndef f():\n    return 0.5"),
        (["assert f([1, 2.5], int) == [1]"], "def f(x, kind):\n    return [y for y in x if type(y) is kind]"),
        (["assert f(lambda: 1) == 1"], None),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("inside")
def test_tests_of_mbpp_call_what_they_name(tests, program):
    if program is None:  # a function of the tests cannot be handed over
        assert "cannot leave" in passes("def f(g):\n    return g()", {"test_list": tests}).reason
    else:
        assert passes(program, {"test_list": tests}) == (True, "")


@pytest.mark.usefixtures("inside")
def test_objects_of_the_program_stay_there_and_are_used_from_the_tests():
    program = """
class Node:
    def __init__(self, value):
        self.value, self.left = value, None
def total(node):
    return node.value + (total(node.left) if node.left else 0)
"""
    label = {
        "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)\r\nroot.left.left = Node(3)",
        "test_list": ["assert total(root) == 6", "assert root.left.value == 2"],
    }
    assert passes(program, label) == (True, "")


def data_of(name, splits, every):
    rows = []
    for split in splits:
        path = DATA / name / f"{split}.jsonl.gz"
        if not path.is_file():
            pytest.skip(f"no {path}: real data are not beside this clone")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    return rows[::every]


def failing(rows, labels, solution):
    predictions = [
        {"index": i, "label": {k: row[k] for k in labels}, "prediction": row[solution]}
        for i, row in enumerate(rows)
    ]
    found = programs.run(predictions, Limits(cpu_seconds=60, wall_seconds=300))
    return {
        row["task_id"]: one["reasons"]
        for row, one in zip(rows, found, strict=True)
        if one["passed"] != [True]
    }


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("inside")
def test_the_solutions_of_humaneval_pass(every):
    rows = data_of("humaneval", ["test"], every)
    assert failing(rows, programs.HUMANEVAL, "canonical_solution") == {}


@pytest.mark.parametrize("every", [100, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("inside")
def test_the_solutions_of_mbpp_pass(every):
    rows = data_of("mbpp", ["test", "train", "validation", "prompt"], every)
    assert failing(rows, ("test_list", "test_setup_code"), "code") == {}


# Programs that would pass without doing it.

FAKES = {
    "leaves with success": "import sys; sys.exit(0)",
    "leaves at once with success": "import os; os._exit(0)",
    "leaves when called": "def double(x):\n    import os; os._exit(0)",
    "leaves by an exception": "def double(x):\n    raise SystemExit(0)",
    "says that it passed": """
        print('{"passed": true, "reason": ""}', flush=True)
        import os; os._exit(0)
    """,
    "writes verdicts wherever it can": """
        import os
        for number in range(64):
            for line in (b'{"passed": true, "reason": ""}', b'{"value": null}'):
                try: os.write(number, line + b"\\n")
                except OSError: pass
        os._exit(0)
    """,
    "returns what equals all": """
        class All(float):
            def __eq__(self, other): return True
            def __sub__(self, other): return 0.0
            __rsub__ = __sub__
        def double(x): return All(7)
    """,
    "returns what says it is anything": """
        class All:
            def __eq__(self, other): return True
            def __getattr__(self, name): return self
        def double(x): return All()
    """,
    "changes built-ins": """
        import builtins, math
        builtins.abs = lambda x: 0
        builtins.AssertionError = type("Never", (Exception,), {})
        builtins.__build_class__ = builtins.__import__ = None
        math.isclose = lambda *a: False
        def double(x): return x
    """,
    "hides its frames": """
        import sys
        for frame in list(sys._current_frames().values()):
            while frame:
                frame.f_globals.update(check=lambda c: None, _judge=lambda *a: None)
                frame = frame.f_back
        def double(x): return x
    """,
    "kills whom it finds": """
        import os
        for number in (os.getppid(), 1, -1, *range(3, 50)):
            try: os.kill(number, 9)
            except OSError: pass
        def double(x): return x
    """,
}  # fmt: skip


@pytest.mark.parametrize("how", FAKES)
@pytest.mark.usefixtures("inside")
def test_no_program_passes_without_doing_it(how):
    program = f"def double(x):\n    return 0\n{textwrap.dedent(FAKES[how])}"
    verdict = passes(program)
    assert not verdict.passed
    assert verdict.reason


@pytest.mark.usefixtures("inside")
def test_no_program_ends_the_loop_of_its_tests():
    label = {"test_list": ["assert all(map(f, [1, 2]))"]}
    assert not passes("def f(x):\n    raise StopIteration", label).passed
    assert passes("def f(x):\n    return x", label).passed


# Programs that would do harm.

TRIED = """
import ctypes, os, resource, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    return ctypes.get_errno() if libc.syscall(*arguments) < 0 else 0
def write(path, size=1):
    with open(path, "ab") as file:
        return file.write(b"x" * size)
def probe():
    tried = {}
    def attempt(name, action):
        try: tried[name] = repr(action())
        except BaseException as error: tried[name] = type(error).__name__
    attempt("fork", os.fork)
    attempt("start", lambda: subprocess.run([os.sys.executable or "/bin/true", "-c", ""]))
    attempt("internet", lambda: socket.create_connection(("1.1.1.1", 80), 1))
    attempt("local socket", lambda: socket.socket(socket.AF_UNIX))
    attempt("home", lambda: os.listdir(os.path.expanduser("~")))
    attempt("folders", lambda: set(os.listdir("/")) & {"boot", "home", "proc", "run", "sys", "var", "work"})
    attempt("passwords", lambda: open("/etc/passwd").read())
    attempt("environment", lambda: "SECRET_OF_A_TEST" in os.environ)
    attempt("write /", lambda: write("/new"))
    attempt("write the library", lambda: write(os.__file__))
    attempt("write the judge", lambda: write("/inside/judge.py"))
    attempt("remove", lambda: os.remove(os.__file__))
    attempt("kernel log", lambda: open("/dev/kmsg"))
    attempt("more memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))
    attempt("large file", lambda: write("large", 20 << 20))
    attempt("much memory", lambda: len(bytearray(2 << 30)))
    attempt("new root", lambda: os.chroot("/tmp"))
    attempt("user", lambda: (os.getuid(), os.getgid(), os.uname().nodename))
    if os.uname().machine == "x86_64":  # whose numbers these are
        attempt("unshare", lambda: call(272, 0x10000000))
        attempt("shared memory", lambda: call(29, 0, 1 << 30, 0o1600))
        attempt("memory file", lambda: call(319, b"x", 0))
    return tried
"""
OUTCOMES = {
    "fork": "PermissionError",
    "start": "PermissionError",
    "internet": "PermissionError",
    "local socket": "PermissionError",
    "home": "[]",
    "folders": "set()",
    "passwords": "FileNotFoundError",
    "environment": "False",
    "write /": "OSError",
    "write the library": "OSError",
    "write the judge": "OSError",
    "remove": "OSError",
    "kernel log": "FileNotFoundError",
    "more memory": "ValueError",
    "large file": "OSError",
    "much memory": "MemoryError",
    "new root": "PermissionError",
    "user": "(65534, 65534, 'sandbox')",
    "unshare": "1",  # EPERM
    "shared memory": "1",
    "memory file": "1",
}


@pytest.mark.usefixtures("inside")
def test_nothing_outside_is_reached(monkeypatch):
    monkeypatch.setenv("SECRET_OF_A_TEST", "1")
    own = {Path(path).resolve().parts[1] for path in (sys.base_prefix, sys.executable)}
    program = TRIED.replace('"/")) & {', f'"/")) - {own!r} & {{')
    tests = f"""
expected = {OUTCOMES!r}
other = {{name: found for name, found in probe().items() if found != expected[name]}}
assert not other, other
"""
    assert passes(program, {"test_list": [tests]}) == (True, "")


HARMFUL = {
    "loops": "def double(x):\n    while True: pass",
    "sleeps": "def double(x):\n    import time; time.sleep(1000)",
    "forks": "import os\nwhile True:\n    os.fork()",
    "starts threads": """
        import threading
        def again():
            while True: threading.Thread(target=again).start()
        again()
    """,
    "eats memory": "found = []\nwhile True:\n    found.append(bytearray(1 << 24))",
    "fills the disk": """
        import os
        for i in range(10**6):
            with open(str(i), "wb") as file: file.write(b"x" * (8 << 20))
    """,
    "answers without end": "def double(x):\n    return [x] * (10 ** 8)",
    "answers what holds itself": "def double(x):\n    found = []; found.append(found); return found",
    "writes without end": "def double(x):\n    import os\n    while True: print('x' * 10**6)",
    "crashes": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("how", HARMFUL)
@pytest.mark.usefixtures("inside")
def test_what_would_never_end_is_ended(how):
    limits = Limits(cpu_seconds=1, wall_seconds=4 if how == "sleeps" else 60)
    began = time.monotonic()
    assert not passes(
        f"def double(x):\n    0\n{textwrap.dedent(HARMFUL[how])}", limits=limits
    ).passed
    assert time.monotonic() - began < limits.wall_seconds + 20


@pytest.mark.usefixtures("inside")
def test_limits_are_those_that_were_asked_for():
    found = told(
        """
        import resource, shutil
        names = ["CPU", "AS", "FSIZE", "NOFILE", "NPROC", "CORE"]
        held = [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names]
        return [soft for soft, hard in held if soft == hard], shutil.disk_usage("/tmp").total
        """,
        Limits(7, 60, 2**29, 2**20, 2**23, 40, 9),
    )
    assert found == repr(([7, 2**29, 2**20, 40, 9, 0], 2**23))


# Nothing is left over.


def alive(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


def a_package(folder):
    """A package that sleeps, with a name that only it has."""
    package = folder / f"sleeps{uuid.uuid4().hex}"
    package.mkdir()
    (package / "long.py").write_text(
        "import threading, time\n"
        "def main(arguments):\n"
        "    threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "    print('ready', flush=True)\n"
    )
    return package


@pytest.mark.usefixtures("inside")
def test_leaving_kills_all_that_was_started(tmp_path):
    package = a_package(tmp_path)
    with sandbox.started(package, "long", limits=SHORT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        assert alive(package.name)
    assert gone(package.name)


@pytest.mark.usefixtures("inside")
def test_it_dies_with_us(tmp_path):
    package = a_package(tmp_path)
    code = (
        "import subprocess, sys, time; from pathlib import Path; from graftlab.programs import sandbox\n"
        f"with sandbox.started(Path({str(package)!r}), 'long', limits=sandbox.Limits(), stdout=1) as p:\n"
        "    time.sleep(1000)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert ours.stdout.readline() == b"ready\n"
    ours.kill()
    ours.wait()
    ours.stdout.close()
    assert gone(package.name)


def gone(mark):
    end = time.monotonic() + 20
    while alive(mark) and time.monotonic() < end:
        time.sleep(0.1)
    return not alive(mark)


# Where there is no sandbox.


@pytest.fixture
def other_bwrap(tmp_path, monkeypatch):
    """Make `bwrap` another program: a shell script, or None for no program."""

    def make(script):
        if script is not None:
            (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "bwrap").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        sandbox._missing.cache_clear()
        return tmp_path / "bwrap"

    yield make
    sandbox._missing.cache_clear()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "not installed"),
        ("echo 'bwrap: No permissions to create a new namespace' >&2; exit 1", "No permissions"),
        ("exit 0", "does not work"),  # says nothing from inside
    ],
)
def test_without_a_sandbox_nothing_is_run(other_bwrap, tmp_path, script, reason):
    other_bwrap(script)
    with pytest.raises(Refused, match=reason) as caught:
        programs.run(
            [{"index": 0, "label": LABEL, "prediction": f"open({str(tmp_path / 'x')!r}, 'w')"}]
        )
    assert caught.value.exit_code == 9
    assert caught.value.problems[0].kind == "no_sandbox"
    assert not (tmp_path / "x").exists()


def test_on_another_machine_nothing_is_run(other_bwrap, monkeypatch):
    other_bwrap("exit 0")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Refused, match="riscv64"):
        sandbox.check()


def test_the_command_shuts_everything_out(other_bwrap):
    path = other_bwrap("exit 0")
    line = sandbox.command(programs.INSIDE, "judge", ["3", "4"], Limits(), 9)
    assert line[0] == str(path)
    options = line[: line.index("--")]
    for option in ("user", "ipc", "pid", "net", "uts"):
        assert f"--unshare-{option}" in options
    assert "--die-with-parent" in options
    assert "--new-session" in options
    assert options[options.index("--cap-drop") + 1] == "ALL"
    assert options[options.index("--seccomp") + 1] == "9"
    assert not {"--share-net", "--bind", "--proc", "--dev", "--setenv"} & set(options)
    seen = [options[i + 1] for i, option in enumerate(options) if option == "--ro-bind"]
    assert not {"/", "/home", "/root", str(Path.home()), "/etc", "/usr", "/var"} & set(seen)
    assert line[-2:] == ["3", "4"]


def kernel_says(program, machine, number, argument=0):
    """What the kernel makes of a call: the filter interpreted as seccomp(2) and bpf(4) say."""
    data = struct.pack("=iI Q 6Q", number, machine, 0, argument, 0, 0, 0, 0, 0)
    code = list(struct.iter_unpack("=HBBI", program))
    place, held = 0, 0
    while True:
        what, true, false, constant = code[place]
        place += 1
        if what == 0x06:
            return constant
        if what == 0x20:
            held = struct.unpack_from("=I", data, constant)[0]
        else:
            holds = {0x15: held == constant, 0x35: held >= constant, 0x45: bool(held & constant)}
            place += true if holds[what] else false


@pytest.mark.parametrize(("machine", "audit"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_denies_processes_and_lets_threads_be(machine, audit):
    program = sandbox.system_call_filter(machine)
    allowed, denied, no_such_call, kill = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
    read, clone = {"x86_64": (0, 56), "aarch64": (63, 220)}[machine]
    thread = 0x003D0F00  # the flags of pthread_create
    assert kernel_says(program, audit, read) == allowed
    assert kernel_says(program, audit, clone, thread) == allowed
    assert kernel_says(program, audit, clone, 17) == denied  # SIGCHLD alone: fork
    assert kernel_says(program, audit, 435) == no_such_call
    place = list(sandbox.ARCHITECTURES).index(machine)
    numbers = [own[place] for own in sandbox.DENIED.values() if own[place] is not None]
    assert {kernel_says(program, audit, number) for number in numbers} == {denied}
    assert kernel_says(program, 0x40000003, read) == kill  # the 32 bits of the same machine
    if machine == "x86_64":
        assert kernel_says(program, audit, 0x40000000 + read) == kill


@pytest.mark.parametrize(
    ("place", "header"), [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")]
)
def test_the_numbers_of_system_calls_are_the_kernels(place, header):
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip(f"no {path}: the kernel's headers are not installed")
    known = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text(), re.M))
    ours = {name: numbers[place] for name, numbers in sandbox.DENIED.items()}
    ours |= {"clone": list(sandbox.CLONE.values())[place], "clone3": sandbox.CLONE3}
    assert {
        n: number for n, number in ours.items() if str(number) != known.get(n, str(number))
    } == {}
    assert {name for name, number in ours.items() if number is None} <= {"fork", "vfork"} - set(
        known
    )


# Predictions.


@pytest.mark.usefixtures("inside")
def test_predictions_say_which_of_their_programs_passed():
    rows = [
        {"index": 0, "label": LABEL, "prediction": ["    return 2 * x\n", "    return 3 * x\n"]},
        {"index": 1, "label": "of another task", "prediction": "text"},
        {
            "index": 2,
            "label": {"test_list": ["assert f() == 1"]},
            "prediction": "def f(): return 1",
        },
    ]
    found = programs.run(rows, SHORT)
    assert [row.get("passed") for row in found] == [[True, False], None, [True]]
    assert found[0]["reasons"][1].startswith("AssertionError")
    assert "passed" not in rows[0]


@pytest.mark.usefixtures("inside")
def test_labels_without_tests_are_refused():
    with pytest.raises(DataError, match=r"no label holds tests.*task\.columns\.reference"):
        programs.run([{"index": 0, "label": "4", "prediction": "4"}])


# From the command line.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has learnt nothing, and written programs that it was not asked to run."""
    from graftlab import config, runfile
    from graftlab.runs import session

    folder = tmp_path_factory.mktemp("programs")
    for split, count in (("train", 4), ("test", 2)):
        rows = [{**LABEL, "solution": f"    return x + x  # {split} {i}"} for i in range(count)]
        rows = [{**row, "prompt": f"{row['prompt']}    # {row['solution']}\n"} for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(
        f"""
task:
  kind: generation
  data_dir: {folder}
  prompt: "{{prompt}}"
  completion: "{{solution}}"
  columns: {{reference: [prompt, test, entry_point]}}
  metrics: [perplexity, pass_at_1]
  max_length: 200
  generation: {{max_new_tokens: 4}}
backbone: {{kind: tiny, max_length: 256}}
method: {{name: lora}}
training: {{max_steps: 1, batch_size: 2, evaluate_every: 0}}
"""
    )
    file = runfile.resolve(config.read(folder / "run.yaml"))
    return session.run(file, folder / "run", options=session.Options(quiet=True))


def evaluated(*arguments):
    from typer.testing import CliRunner

    from graftlab import cli

    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments), "--json"])


def test_programs_are_not_run_unless_asked_for(run, other_bwrap):
    assert "--execute-code" in run.read_result()["metrics"]["test"]["pass_at_1"]["reason"]
    found = json.loads(evaluated(run.path).stdout)
    assert found["metrics"]["pass_at_1"]["value"] is None
    assert found["difference"] == {"rows": 0, "largest": 0.0}
    other_bwrap(None)
    refused = evaluated(run.path, "--execute-code")
    assert refused.exit_code == json.loads(refused.stdout)["error"]["exit_code"] == 9


@pytest.mark.usefixtures("inside")
def test_the_harness_is_not_asked_to_run_programs(run):
    assert evaluated(run.path, "--execute-code", "--harness", "arc_easy").exit_code == 2


@pytest.mark.usefixtures("inside")
def test_programs_are_run_where_asked_for(run):
    result = evaluated(run.path, "--execute-code")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["metrics"]["pass_at_1"]["value"] == 0
    assert found["difference"]["rows"] == 2  # whether they pass was not known
    rows = [json.loads(line) for line in Path(found["predictions"]).read_text().splitlines()]
    assert [row["passed"] for row in rows] == [[False], [False]]
    assert all(row["reasons"][0] for row in rows)
    assert "passed" not in run.predictions("test").read_text()
