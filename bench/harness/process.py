"""Starts programs on one core, reads what they cost from the kernel's own accounting, and ends exactly those.

Everything is counted over the whole process tree, because some programs come in a wrapper (Envoy's Python wheel) or
hand work to children.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG: a killed runner leaves nothing behind
_libc = ctypes.CDLL(None, use_errno=True)


def raise_file_limit():
    """Allows as many open files as the hard limit does; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _prepare(core):
    def in_child():
        _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.sched_setaffinity(0, {core})

    return in_child


def run_on(core, command, timeout):
    """Runs a short program on `core` to its end and returns what it printed; its failure is an error."""
    try:
        done = subprocess.run(
            command, preexec_fn=_prepare(core), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} did not end within {timeout} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class Daemon:
    """A program that runs until `stop`."""

    def __init__(self, name, command, core, output, environment=None):
        self.name = name
        self.output = output
        with open(output, "ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=_prepare(core),
                env={**os.environ, **(environment or {})},
            )

    def check_alive(self):
        """Fails with the program's last words when it has ended."""
        code = self._process.poll()
        if code is not None:
            with open(self.output, "rb") as file:
                words = file.read()[-1500:].decode(errors="replace")
            raise RuntimeError(f"{self.name} ended with code {code}:\n{words}")

    def tree(self):
        """The process ids of the program and all its descendants."""
        found, waiting = [], [self._process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += _children(pid)
        return found

    def cpu_seconds(self):
        """User and system time of the tree so far, in seconds, finished threads and reaped children included."""
        return sum(_cpu_seconds(pid) for pid in self.tree())

    def memory_megabytes(self):
        """Proportional set size of the tree, in MB of 10^6 bytes."""
        return sum(_proportional_kilobytes(pid) for pid in self.tree()) * 1024 / 1e6

    def stop(self, patience=5.0):
        """Asks the tree to end, then makes it."""
        if self._process.poll() is None:
            tree = self.tree()
            _signal(tree, signal.SIGTERM)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                _signal(tree, signal.SIGKILL)
        self._process.wait()


def _children(pid):
    children = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                children += [int(child) for child in file.read().split()]
    except OSError:
        pass
    return children


def _cpu_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    # proc(5), counted from the field after the name: utime, stime, cutime, cstime
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND


def _proportional_kilobytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def _signal(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def wait_until(ready, what, seconds=20.0, watched=()):
    """Waits for `ready()` to be true; fails, naming `what`, at the deadline or when a watched daemon ends."""
    deadline = time.monotonic() + seconds
    while not ready():
        for daemon in watched:
            daemon.check_alive()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
