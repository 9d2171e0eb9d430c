# Replaces the official image of this name: Debian with a C compiler, and the Rust toolchain and trusted
# certificates of the machine that builds the image, which are in the build context.
FROM debian:bookworm-slim
LABEL anode.stand-in=1
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV CARGO_HOME=/usr/local/cargo \
    PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY . /usr/local/rust
RUN mv /usr/local/rust/ca-certificates.crt /etc/ssl/certs/
