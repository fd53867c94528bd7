# Sourced by run: installs what is missing, once.

# Debian packages by the command that shows they are there.
declare -A packages=(
  [haproxy]=haproxy [nginx]=nginx-light [wrk]=wrk [h2load]=nghttp2-client [nghttpd]=nghttp2-server
  [iperf3]=iperf3 [curl]=curl [openssl]=openssl [javac]=default-jdk-headless [mvn]=maven
  [knotd]=knot
)

install_tools() {
  local missing=() command
  for command in "${!packages[@]}"; do
    command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || missing+=("${packages[$command]}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" || return 1
  fi
  if ! [ -x "$cache/tools/bin/cargo-deny" ]; then
    cargo install --quiet --locked cargo-deny --version 0.20.2 --root "$cache/tools" || return 1
  fi
  if ! [ -x "$cache/python/bin/python" ] || ! "$cache/python/bin/python" -c 'import grpc' 2>/dev/null; then
    python3 -m venv "$cache/python" && "$cache/python/bin/pip" install -q grpcio==1.85.1 || return 1
  fi
  export WEFT_TEST_PYTHON="$cache/python/bin/python"
}
