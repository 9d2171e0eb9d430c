# Stands in for the official image of this name: Debian with Java, Cassandra's jars from Maven Central,
# and an entry that reads the same variables as far as docker-compose.yml uses them.
FROM debian:bookworm-slim
LABEL anode.stand-in=1
# The runtime's package wants the directories of manuals, which small images lack.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 999 --user-group --no-create-home cassandra \
    && install -d -o cassandra -g cassandra /var/lib/cassandra
COPY jars /opt/cassandra/jars
COPY cassandra.options /opt/cassandra/
COPY cassandra-entrypoint /usr/local/bin/docker-entrypoint.sh
USER cassandra
VOLUME /var/lib/cassandra
EXPOSE 7000 9042
ENTRYPOINT ["docker-entrypoint.sh"]
