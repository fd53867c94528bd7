"""Runs the cases: every case as A B C A B C, so that a change in the machine's mood meets all proxies alike."""

from dataclasses import dataclass, field

from . import load
from .cases import (APP, BODY_1K, BODY_64, CPU_CASES, LATENCY_CASES, LATENCY_UNIT, MEMORY_CASES,
                    MEMORY_UNIT, PACED_CONNECTIONS, PACED_RATE)
from .proof import prove, require_log_lines, settle_logs


@dataclass
class Run:
    """One measured run of one proxy."""

    cost: float
    # Cost by role where the roles' costs add up to the whole.
    parts: dict = field(default_factory=dict)
    # Units of work per second, where the client goes as fast as it can.
    rate: float | None = None
    disturbance: object = None


@dataclass
class Series:
    """All runs of one case and proxy."""

    case: str
    proxy: str
    unit: str
    runs: list = field(default_factory=list)


class Plan:
    """What a run needs: programs, makers of pairs, lengths, and somewhere to talk to."""

    def __init__(self, tools, makers, backend, certificates, folder, witness, seconds, repeats, say):
        self.tools, self.makers, self.backend, self.certificates = tools, makers, backend, certificates
        self.folder, self.witness, self.seconds, self.repeats, self.say = folder, witness, seconds, repeats, say
        self.failures = []
        self._made = 0

    def fail(self, what):
        """Remembers what could not be measured, and tells it."""
        self.failures.append(what)
        self.say(f"FAILED {what}")

    def start(self, name):
        """Starts a fresh pair of the proxy `name`."""
        self._made += 1
        pair = self.makers[name](self.tools, self.folder / f"{name}-{self._made}", self.certificates, self.backend)
        try:
            return pair.start()
        except BaseException:
            pair.stop()
            raise


def measure(plan, names):
    """All series of the cases `names`. What cannot be done is told to `plan.fail` and left out."""
    series = _memory(plan, [name for name in names if name in MEMORY_CASES])
    cpu = [case for case in CPU_CASES if case.name in names]
    latency = [name for name in names if name in LATENCY_CASES]
    pairs = {}
    try:
        if cpu or latency:
            pairs = _start_all(plan)
        for case in cpu:
            series += _cpu(plan, case, pairs)
        if latency:
            series += _latency(plan, latency, pairs)
    finally:
        for pair in pairs.values():
            pair.stop()
    order = {name: position for position, name in enumerate(names)}
    return sorted(series, key=lambda one: order[one.case])


def _start_all(plan):
    """A pair of each proxy, all features proved."""
    pairs = {}
    for name in plan.makers:
        pair = None
        try:
            pair = plan.start(name)
            for line in prove(pair, plan.certificates):
                plan.say(f"proved {name}: {line}")
            pairs[name] = pair
        except RuntimeError as error:
            plan.fail(str(error))
            if pair:
                pair.stop()
    return pairs


def _cpu(plan, case, pairs):
    series = {}
    for name, pair in pairs.items():
        try:
            case.work(plan, pair, 1)  # opens connections and warms caches; not counted
            series[name] = Series(case.name, name, case.unit)
        except RuntimeError as error:
            plan.fail(f"{case.name}: {name}: {error}")
    for _ in range(plan.repeats):
        for name in list(series):
            try:
                run = _cpu_run(plan, case, pairs[name])
            except RuntimeError as error:
                plan.fail(f"{case.name}: {error}")
                del series[name]
                continue
            series[name].runs.append(run)
            parts = " + ".join(f"{part:.4g}" for part in run.parts.values())
            plan.say(f"{case.name:15} {name:8} {run.cost:9.4g} {case.unit} ({parts}), {run.rate:,.1f}/s")
    return list(series.values())


def _cpu_run(plan, case, pair):
    settle_logs(pair)
    pair.forget_logs()
    plan.witness.begin()
    before = pair.cpu_seconds()
    done = case.work(plan, pair, plan.seconds)
    used = {role: seconds - before[role] for role, seconds in pair.cpu_seconds().items()}
    disturbance = plan.witness.end(sum(used.values()))
    pair.check_alive()
    if done.errors or not done.units:
        raise RuntimeError(f"{pair.name}, {case.name}: {done.errors} errors in {done.units} units of work")
    if case.in_flight is not None:
        require_log_lines(pair, case.roles, int(done.units), case.in_flight)
    parts = {role: used[role] / done.units * case.scale for role in case.roles}
    return Run(sum(parts.values()), parts, done.units / done.seconds, disturbance)


def _latency(plan, names, pairs):
    series = {(case, name): Series(case, name, LATENCY_UNIT) for case in names for name in pairs}
    for _ in range(plan.repeats):
        direct = _quantiles(plan, plan.backend.stable, names)
        plan.say("latency         direct   " + ", ".join(f"{direct[case]} µs {case[8:]}" for case in names))
        for name, pair in pairs.items():
            before = sum(pair.cpu_seconds().values())
            plan.witness.begin()
            through = _quantiles(plan, pair.ports.http, names)
            disturbance = plan.witness.end(sum(pair.cpu_seconds().values()) - before)
            for case in names:
                series[case, name].runs.append(Run(through[case] - direct[case], disturbance=disturbance))
            plan.say(f"latency         {name:8} " + ", ".join(f"+{through[case] - direct[case]} µs {case[8:]}" for case in names))
    return list(series.values())


def _quantiles(plan, port, names):
    latencies = load.paced(port, APP, BODY_1K, PACED_CONNECTIONS, PACED_RATE, plan.seconds)
    return {name: latencies[int(len(latencies) * LATENCY_CASES[name])] for name in names}


def _memory(plan, names):
    """Each pair alone and fresh: pages that two pairs share would be counted to both by halves."""
    series = []
    for name in plan.makers if names else ():
        try:
            series += _memory_of(plan, name, names)
        except RuntimeError as error:
            plan.fail(f"memory: {name}: {error}")
    return series


def _memory_of(plan, name, names):
    series, pair = [], plan.start(name)
    try:
        for case in names:
            idle = load.IdleConnections(pair.ports.http, APP, BODY_64, max(1, MEMORY_CASES[case]))
            parts = pair.memory_megabytes()
            idle.close()
            series.append(Series(case, name, MEMORY_UNIT, [Run(sum(parts.values()), parts)]))
            plan.say(f"{case:15} {name:8} {series[-1].runs[0].cost:9.4g} {MEMORY_UNIT}")
    finally:
        pair.stop()
    return series
