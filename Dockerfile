# An image of one binary, for one node: docker build -t anode .
# Everything `anode serve` can be told comes from the environment (ANODE_JOIN for --join).
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# The dependencies first, with empty programs where ours will be: this layer is built again only when
# a manifest, the lock file or a schema changes.
COPY Cargo.toml Cargo.lock build.rs ./
COPY loadgen/Cargo.toml loadgen/
COPY bench/Cargo.toml bench/
COPY proto proto
RUN for package in . loadgen bench; do \
        mkdir -p "$package/src" && touch "$package/src/lib.rs" && echo 'fn main() {}' >"$package/src/main.rs" || exit 1; \
    done \
    && mkdir bench/benches && touch bench/benches/micro.rs \
    && cargo build --release --locked --package anode
# Copied files are older than what was just built of the empty ones, which would pass for new.
COPY src src
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --package anode
# What the image will hold: the binary, the C library it is linked to, how names are looked up, and the
# data directory. The names of functions stay, for traces.
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
# By number, so that who forbids root can see that this is none.
USER 10001:10001
# Without --join a node is alone, and gossip stays on loopback; a cluster also sets ANODE_GOSSIP.
ENV PATH=/usr/local/bin \
    ANODE_HTTP=0.0.0.0:7070 \
    ANODE_DATA_DIR=/var/lib/anode
VOLUME /var/lib/anode
EXPOSE 7070/tcp 7946/tcp 7946/udp
# Whether it runs, not whether it is ready: a node that waits for Cassandra still serves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["anode", "health"]
# No shell between: the node is process 1 and gets the signals itself.
ENTRYPOINT ["anode"]
CMD ["serve"]
