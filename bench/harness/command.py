"""The command line: `just bench [cases] [-o json] [--proxies …] [--quick]`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from . import cases, envoy, haproxy, machine, report, tools, weft
from .backend import APPLICATION_CORE, Backend
from .certificates import Certificates
from .measure import Plan, measure
from .process import raise_file_limit

MAKERS = {"weft": weft, "envoy": envoy, "haproxy": haproxy}
SECONDS, REPEATS = 4, 5
QUICK_SECONDS, QUICK_REPEATS = 1, 2
# 5000 connections, each open on both ends within one process when all goes through the runner, and some to spare.
NEEDED_FILES = 12_000


def main(arguments):
    """Runs the bench; returns the exit code: 0 done, 1 something failed, 2 not possible here."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="weft-bench-"))
    try:
        return _bench(options, folder)
    except (tools.MissingTool, ValueError) as error:
        say(f"bench: {error}")
        return 2
    except RuntimeError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 130
    finally:
        if options.keep:
            say(f"configs and logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="just bench", description="Weft beside Envoy and HAProxy: what a unit of work costs, lower is better.",
        epilog="cases: " + ", ".join(cases.names()) + "; a common beginning such as `latency` means all that share it")
    parser.add_argument("cases", nargs="*", metavar="case", help="which to run; all when none is named")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--machine", type=Path, metavar="FILE", help="also write the machine's facts and the noise as JSON")
    parser.add_argument("--proxies", default=",".join(MAKERS), help="which to compare (default: %(default)s)")
    parser.add_argument("--weft-bin", metavar="PATH", help="a weft binary; default: build this tree as packages are built")
    parser.add_argument("--quick", action="store_true", help="short runs: a smoke test, not a judgement")
    parser.add_argument("--seconds", type=int, help=f"length of one run (default {SECONDS}, quick {QUICK_SECONDS})")
    parser.add_argument("--repeats", type=int, help=f"runs of each case and proxy (default {REPEATS}, quick {QUICK_REPEATS})")
    parser.add_argument("--keep", action="store_true", help="keep configs and logs")
    return parser.parse_args(arguments)


def _bench(options, folder):
    wanted = cases.selected(options.cases)
    proxies = [name.strip() for name in options.proxies.split(",")]
    unknown = [name for name in proxies if name not in MAKERS]
    if unknown:
        raise ValueError(f"no proxy is called {unknown[0]!r}; there are: {', '.join(MAKERS)}")
    prepare_machine()
    found = tools.gather(proxies, options.weft_bin, say)
    facts = {**machine.facts(), "versions": {name: MAKERS[name].version(found) for name in proxies}}
    certificates = Certificates(folder / "certificates")
    backend = Backend(found, folder / "backend")
    try:
        seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
        repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
        plan = Plan(found, {name: MAKERS[name].make for name in proxies}, backend, certificates, folder,
                    machine.Witness(), seconds, repeats, say)
        series = measure(plan, wanted)
    finally:
        backend.stop()
    facts.update(seconds=seconds, repeats=repeats, noise=report.noise(series))
    facts["failures"] = plan.failures
    _print(options, report.rows(series), facts)
    return 1 if plan.failures else 0


def prepare_machine():
    """Refuses a machine that cannot be measured, and takes the runner off the proxies' core."""
    if sys.platform != "linux":
        raise ValueError("the bench reads Linux's accounting; run it on Linux")
    if not {0, 1} <= os.sched_getaffinity(0):
        raise ValueError("the bench needs cores 0 and 1: clients and applications run on 0, proxies on 1")
    os.sched_setaffinity(0, {APPLICATION_CORE})
    limit = raise_file_limit()
    if limit < NEEDED_FILES:
        raise ValueError(f"at most {limit} open files are allowed and the bench needs {NEEDED_FILES}: see `ulimit -Hn`")


def _print(options, rows, facts):
    if options.machine:
        options.machine.write_text(report.as_json(facts) + "\n")
    if options.output == "json":
        print(report.as_json(rows))
        say(report.machine_text(facts))
    else:
        print(report.machine_text(facts), report.table(rows), sep="\n\n")


def say(text):
    """Tells the person at the terminal; results alone go to standard output."""
    print(text, file=sys.stderr, flush=True)
