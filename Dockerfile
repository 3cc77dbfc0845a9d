# Both programs in a small image. It stands here and not in docker/, so that `docker build .` finds it; docker/README.md
# says how it is run.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bins

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin pgpivot \
    && install -d -o pgpivot -m 0700 /var/lib/pgpivot
COPY --from=build /src/target/release/pgpivot /src/target/release/proxyctl /usr/local/bin/
USER 10001
# The latch and the history: what must survive the container.
ENV STATE_DIRECTORY=/var/lib/pgpivot
WORKDIR /var/lib/pgpivot
VOLUME /var/lib/pgpivot
# Routing is published, and the state can be written. A database that is down makes nobody unhealthy.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8404/ready"]
CMD ["proxyctl", "monitor"]
