"""Samples a pair at work with perf and shares its CPU time per unit of work among what it was spent on.

Samples are of the CPU clock, so no hardware counters are needed. A sample counts for the function it fell in; with
inlining that is the function into which the code was compiled.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import machine, tools
from .backend import Backend
from .certificates import Certificates
from .cases import CPU_CASES
from .command import MAKERS, prepare_machine, say
from .measure import Plan
from .process import Daemon

SAMPLES_PER_SECOND = 1999
SPARE_CORE = 0
# The first pattern that fits names the group.
GROUPS = [
    ("kernel: network", r"\[k\] .*(tcp|ip_|__ip|sock|skb|net_|netif|inet|loopback|nf_|dst_|dev_|sendmsg|recvmsg|sk_|eth_|qdisc)"),
    ("kernel: files", r"\[k\] .*(ext4|jbd2|vfs|folio|page|iomap|filemap|generic_perform|write_begin|write_end|iov_iter|xas_)"),
    ("kernel: epoll", r"\[k\] .*(ep_|epoll|eventfd|eventpoll)"),
    ("kernel: entry, scheduling, other", r"\[k\] "),
    ("TLS: cipher and records", r"aes|gcm|ghash|chacha|poly1305|rustls|aws_lc|libssl|libcrypto|SSL|EVP|CRYPTO|bssl"),
    ("memory: allocate and free", r"malloc|_int_free|cfree|realloc|calloc|arena|tcache|unlink_chunk|operator new|operator delete|tc_new|rust_alloc|__rdl_|tcmalloc|pool_alloc|pool_free"),
    ("memory: copy and compare", r"mem(cpy|move|set|cmp|chr)|_avx|_sse2"),
    ("HTTP/2: h2", r"h2::|http2|nghttp2|h2_|hpack"),
    ("HTTP/1: hyper, httparse", r"hyper|httparse|h1_|http1|http_parser|balsa"),
    ("headers: http crate", r"http::|HeaderMap|header_map|htx"),
    ("runtime: tokio, mio", r"tokio|mio::|futures"),
    ("weft: access log", r"weft_proxy.*access_log"),
    ("weft: metrics, tap, record", r"weft_proxy.*(metrics|tap|record)"),
    ("weft: data path", r"weft_"),
    ("standard library", r"core::|alloc::|std::|libc\.|libm\."),
    ("other", r""),
]


def main(arguments):
    """Profiles one case; returns the exit code."""
    options = _parse(arguments)
    if not shutil.which("perf"):
        say("profile: perf is not installed (Debian: linux-perf)")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="weft-profile-"))
    try:
        prepare_machine()
        _profile(options, folder)
        return 0
    except (tools.MissingTool, ValueError, RuntimeError) as error:
        say(f"profile: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse(arguments):
    cases = [case.name for case in CPU_CASES]
    parser = argparse.ArgumentParser(prog="bench/profile", description="What each microsecond of a case goes to.")
    parser.add_argument("case", nargs="?", choices=cases, default=cases[0])
    parser.add_argument("--proxy", choices=MAKERS, default="weft")
    parser.add_argument("--weft-bin", metavar="PATH")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--top", type=int, default=40, help="functions to list (default %(default)s)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep perf's data here, with call graphs")
    return parser.parse_args(arguments)


def _profile(options, folder):
    found = tools.gather([options.proxy], options.weft_bin, say)
    certificates, backend = Certificates(folder / "certificates"), Backend(found, folder / "backend")
    case = next(case for case in CPU_CASES if case.name == options.case)
    try:
        plan = Plan(found, {options.proxy: MAKERS[options.proxy].make}, backend, certificates, folder,
                    machine.Witness(), options.seconds, 1, say)
        pair = plan.start(options.proxy)
        try:
            _sample(plan, case, pair, options)
        finally:
            pair.stop()
    finally:
        backend.stop()


def _sample(plan, case, pair, options):
    case.work(plan, pair, 1)
    recorders = {role: _record(plan, role, pids, options) for role, pids in pair.process_ids().items()}
    before = pair.cpu_seconds()
    try:
        done = case.work(plan, pair, options.seconds)
        used = {role: seconds - before[role] for role, seconds in pair.cpu_seconds().items()}
    finally:
        for recorder in recorders.values():
            recorder.stop()
    for role in case.roles:
        cost = used[role] / done.units * case.scale
        print(f"\n{pair.name} {role}, {case.name}: {cost:.2f} {case.unit} (sampling itself included)\n")
        _show(_shares(plan.folder / f"{role}.data"), cost, options.top)
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            shutil.copy(plan.folder / f"{role}.data", options.save / f"{pair.name}-{case.name}-{role}.data")


def _record(plan, role, pids, options):
    graph = ["--call-graph", "dwarf,8192"] if options.save else []
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_SECOND), *graph,
               "-o", str(plan.folder / f"{role}.data"), "-p", ",".join(map(str, pids))]
    return Daemon("perf", command, SPARE_CORE, plan.folder / f"{role}.perf")


def _shares(data):
    """Share of the samples by symbol: `[k] name (library)` in the kernel, `[.] name (library)` outside."""
    text = subprocess.run(["perf", "report", "-i", str(data), "--stdio", "--no-children", "-g", "none", "--sort", "dso,symbol"], capture_output=True, text=True, check=True).stdout
    # The columns after the symbol are of hardware that is not there.
    found = re.findall(r"^\s*([\d.]+)%\s+(\S+)\s+(\[[k.]\] .*?)(?:\s+-)*\s*$", text, re.MULTILINE)
    return [(float(share) / 100, f"{symbol}  ({library})") for share, library, symbol in found]


def _show(shares, cost, top):
    groups = {}
    for share, symbol in shares:
        group = next(name for name, pattern in GROUPS if re.search(pattern, symbol))
        groups[group] = groups.get(group, 0.0) + share
    for name, share in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"{share * cost:8.2f}  {share:6.1%}  {name}")
    print()
    for share, symbol in shares[:top]:
        print(f"{share * cost:8.3f}  {share:6.1%}  {symbol[:140]}")
