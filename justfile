# Thin aliases; what they call stands in scripts/ and .ci/run.

# format, lints
check:
    cargo fmt --check
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --no-default-features --examples -- -D warnings

# install what the tests need and run them
test *args:
    scripts/test {{args}}

# the benches
bench:
    cargo bench

# failovers beside HAProxy's
bench-failover *args:
    scripts/bench-failover {{args}}

# the documentation, its links checked
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# licences, duplicates, sources
deny:
    cargo deny check bans licenses sources

# a pair, a writer, the daemon; --cockroach for clusters
demo *args:
    cargo run -- demo {{args}}
