# The recipes of .ci/run, one by one. `just` alone lists them.

_default:
    @just --list

# The README's test command
test:
    cargo test --workspace

# Format, lints and licences
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo deny check bans licenses sources

# The live demonstration
demo *ARGS:
    cargo run --release --bin weft -- demo {{ARGS}}

# Weft beside Envoy and HAProxy; `-o json` for rows
bench *ARGS:
    @bench/run {{ARGS}}

# What following a registry costs, on the real servers: all that are installed, or those named; `-o json` for rows
bench-registries *ARGS:
    @cargo bench -q -p weft-agent --bench registries -- {{ARGS}}

# What one endpoint change costs, by size of the mesh
bench-compile:
    cargo bench -p weft-core --bench compile

# Each fuzz target for SECONDS seconds
fuzz SECONDS="60":
    .ci/fuzz {{SECONDS}}

# Build the real servers that tests run against: all that is absent, or those named
testbed *SERVERS:
    @testbed/install {{SERVERS}}

# What every registry is asked, against its real server: all of them, or those named
conformance *BACKENDS:
    cargo test -q -p weft-registries --test conformance -- {{BACKENDS}}

# Each platform's server killed and cut off for a minute, under load: what `just test` leaves out for its length
outages:
    cargo test --workspace --test platforms --test consul -- --ignored

# Everything the gate checks
ci:
    .ci/run
