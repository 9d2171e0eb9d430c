# An image with a single binary, to run one node. Build it with `docker build -t anode .` in this directory.
# All settings of `anode serve` can be given as environment variables (ANODE_JOIN for --join).
# The image with the compiler. To have the same one each time, give its digest: rust:1.95-slim-bookworm@sha256:…
ARG RUST_IMAGE=rust:1.95-slim-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /build
# The names and versions of all dependencies are put into the binary, where scanners find them (`cargo audit bin`,
# trivy, grype).
RUN cargo install cargo-auditable --locked --version 0.7.7
# The dependencies are built first, together with empty programs in the place of aNode's own. This layer is
# built again only if a manifest, the lock file or a schema changes.
COPY Cargo.toml Cargo.lock build.rs ./
COPY loadgen/Cargo.toml loadgen/
COPY bench/Cargo.toml bench/
COPY clients/rust/Cargo.toml clients/rust/
COPY netem/Cargo.toml netem/
COPY proto proto
COPY wit wit
# The page for browsers, as it was built: no Node is needed here.
COPY web/dist web/dist
RUN for package in . loadgen bench clients/rust netem; do \
        mkdir -p "$package/src" && touch "$package/src/lib.rs" && echo 'fn main() {}' >"$package/src/main.rs" || exit 1; \
    done \
    && mkdir bench/benches && touch bench/benches/micro.rs \
    && mkdir netem/planted && echo 'fn main() {}' >netem/planted/main.rs \
    && cargo auditable build --release --locked --package anode --features graphiql,wasm,kafka
# The copied files are older than what was just built from the empty ones. Without `touch`, cargo would take
# them for unchanged.
COPY src src
RUN touch src/lib.rs src/main.rs && cargo auditable build --release --locked --package anode --features graphiql,wasm,kafka
# The content of the image: the binary, the C library that it is linked to, the configuration of name
# resolution, and the data directory. The names of functions are kept for stack traces.
RUN mkdir -p /image/usr/local/bin /image/etc /data/anode \
    && strip --strip-debug -o /image/usr/local/bin/anode target/release/anode \
    && ldd target/release/anode | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory /image \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && chmod 0750 /data/anode

FROM scratch
LABEL org.opencontainers.image.title="aNode" \
      org.opencontainers.image.description="A decentralized real-time data server: publish at any node, every node pushes to its subscribers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
COPY --from=build --chown=10001:10001 /data /var/lib
# The user is given by number, so that a cluster that forbids root can see that this is another user.
USER 10001:10001
# Without --join the node is alone and gossip stays on loopback. In a cluster, ANODE_GOSSIP must also be set.
ENV PATH=/usr/local/bin \
    ANODE_HTTP=0.0.0.0:7070 \
    ANODE_DATA_DIR=/var/lib/anode
VOLUME /var/lib/anode
EXPOSE 7070/tcp 7946/tcp 7946/udp
# Checks whether the node runs, not whether it is ready, because a node that waits for Cassandra still serves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["anode", "health"]
# The node is started without a shell, so that it is process 1 and receives the signals itself.
ENTRYPOINT ["anode"]
CMD ["serve"]
