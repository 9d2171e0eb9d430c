# Replaces the official image of this name: Debian with Java, Cassandra's jars from Maven Central, and an
# entrypoint that reads those variables of the official image that docker-compose.yml uses.
FROM debian:bookworm-slim
LABEL anode.stand-in=1
# The package of the Java runtime needs the directories of manual pages, which small images do not have.
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
