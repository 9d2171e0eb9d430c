//! By what each block of code in the documentation is checked.

/// By what the block is checked that begins with a text, in the pages that the entry names.
pub struct Block {
    pub page: &'static str,
    pub begins: &'static str,
    pub checked_by: CheckedBy,
}

pub enum CheckedBy {
    /// A test or script that reads the page, or does what the block says: its file. It names the page, or holds every line of
    /// the block.
    File(&'static str),
    /// A test beside this file, which reads the block from the page.
    Here,
    /// The commands of the block are not run, for this reason. The test of all pages sees that the commands and their options exist.
    Options(&'static str),
    /// Nothing can run it here, for this reason.
    Nothing(&'static str),
}
use CheckedBy::{File, Here, Nothing, Options};

const fn block(page: &'static str, begins: &'static str, checked_by: CheckedBy) -> Block {
    Block { page, begins, checked_by }
}

const QUICK_STARTS: CheckedBy = File("clients/conformance/quick_starts.py");
const LOADGEN: CheckedBy = File("loadgen/src/main.rs");
const BENCH: CheckedBy = File("bench/src/main.rs");
const COMPOSE: CheckedBy = File("scripts/compose-smoke");
const OUTPUT: CheckedBy = Nothing("it is the output of a run, with the machine and the commit");
const CARGO: CheckedBy = Nothing("it builds the program, as this test's own run does");

/// Every block that is not in a page of [`READ_WHOLE`], and those of such pages that something else checks.
pub const BLOCKS: &[Block] = &[
    block("README.md", "cargo run --release -- demo", File("tests/black_box/terminal_top.rs")),
    block("README.md", "target/release/anode serve", Here),
    block("README.md", "target/release/anode sub", Here),
    block("README.md", "curl -X PUT", Here),
    block("README.md", "import asyncio", QUICK_STARTS),
    block("README.md", "import { connect }", QUICK_STARTS),
    block("README.md", "#[tokio::main]", QUICK_STARTS),
    block("README.md", "export ANODE_CLUSTER_KEY", File("tests/black_box/guide.rs")),
    block("docs/benchmarks.md", "machine: ", OUTPUT),
    block("docs/benchmarks.md", "anode-bench cluster", BENCH),
    block("docs/benchmarks.md", "anode serve --store memory", LOADGEN),
    block("docs/cassandra.md", "anode serve --store cassandra", File("tests/black_box/cassandra.rs")),
    block("docs/cli.md", "anode export", Here),
    block("docs/cli.md", "anode completions", Here),
    block("docs/clients/python.md", "python3 -m venv", File("scripts/stranger-test")),
    block("docs/clients/python.md", "import asyncio", QUICK_STARTS),
    block("docs/clients/rust.md", "cargo add", File("scripts/stranger-test")),
    block("docs/clients/rust.md", "#[tokio::main]", QUICK_STARTS),
    block("docs/clients/typescript.md", "(cd clients/typescript", File("scripts/stranger-test")),
    block("docs/clients/typescript.md", "import { connect }", QUICK_STARTS),
    block("docs/faults.md", "netem/run --list", File("netem/src/arguments.rs")),
    block("docs/faults.md", "netem/run kill-half --compose", File("netem/src/arguments.rs")),
    block("docs/faults.md", "netem/run kill-half --peer", File("netem/src/arguments.rs")),
    block("docs/faults.md", "about = ", File("netem/src/profile/mod.rs")),
    block("docs/faults.md", "anode-netem-local", File("netem/src/bin/anode-netem-local.rs")),
    block("docs/loadgen.md", "cargo build", LOADGEN),
    block("docs/operation.md", "deploy/secrets   ", COMPOSE),
    block("docs/operation.md", "deploy/secrets secrets", Here),
    block("docs/operation.md", "helm install", File("scripts/chart-check")),
    block("docs/operation.md", "ANODE_HTTP=", Here),
    block(
        "docs/operation.md",
        "docker run",
        Nothing("it needs a container engine and the volumes of a cluster"),
    ),
    block("docs/operation.md", "ANODE_IMAGE=", File("tests/deploy.rs")),
    block("docs/operation.md", "docker compose build", COMPOSE),
    block("docs/page.md", "cd web && npm install", File("web/test/build.test.mjs")),
    block("docs/protocol.md", "{\"source\":\"sensors/7/temp\",\"data\":21.5}", Here),
    block("docs/protocol.md", "{\"id\":7,\"result\"", Here),
    block("docs/protocol.md", "/subscribe?source=", Here),
    block("docs/protocol.md", "→ {\"id\":1,\"subscribe\"", Here),
    block("docs/protocol.md", "{\"connected\"", Here),
    block("docs/protocol.md", "→ {\"id\":1,\"auth\"", Here),
    block("docs/protocol.md", "event: record", File("tests/black_box/streams.rs")),
    block("docs/protocol.md", "{\"applied\":2", Here),
    block("docs/protocol.md", "mutation {", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\"publish\"", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\n  record", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\"record\"", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "{\n  members", File("tests/black_box/graphql.rs")),
    block("docs/protocol.md", "subscription {", File("tests/black_box/graphql.rs")),
    block("docs/security.md", "deploy/secrets", File("tests/black_box/guide.rs")),
    block("docs/security.md", "export ANODE_CLUSTER_KEY", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode pub sensors", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode members", File("tests/black_box/guide.rs")),
    block("docs/security.md", "anode serve --http 0.0.0.0:7070", Here),
    block("docs/security.md", "anode sub", Here),
    block("docs/security.md", "[anonymous]", Here),
    block("docs/security.md", "[jwt]", Here),
    block("docs/security.md", "{\"iss\"", Here),
    block("docs/security.md", "curl -fsS", Nothing("it asks an identity provider of the reader")),
    block("docs/security.md", "anode keys new", Here),
    block("docs/security.md", "ID  STATE", Here),
    block(
        "docs/security.md",
        "map $http_upgrade",
        Nothing("it is the configuration of nginx, with names of the reader"),
    ),
    block(
        "docs/simulator.md",
        "anode sim spread",
        Options("most of these runs take minutes, and one has no end"),
    ),
    block("docs/simulator.md", "CARGO_PROFILE", CARGO),
    block("docs/extend/archives.md", "kind = \"s3\"", Here),
    block("docs/extend/archives.md", "kind = \"ipfs\"", Here),
    block("docs/extend/archives.md", "kind = \"tableland\"", Here),
    block("docs/extend/archives.md", "anode archive put hourly", Here),
    block("docs/extend/filters.md", "anode sub", Here),
    block("docs/extend/filters.md", "data.c > 20.5", File("src/expression/page_tests.rs")),
    block("docs/extend/pull.md", "anode pull test", Here),
    block("docs/extend/webhooks.md", "anode --url", Here),
    block("docs/extend/webhooks.md", "POST /in", Here),
    block("docs/extend/middlewares.md", "anode middleware put celsius", Here),
    block("docs/extend/middlewares.md", "anode middleware rollback", Here),
    block("docs/extend/middlewares.md", "$ echo", Here),
    block("docs/extend/middlewares.md", "rustup target", File("tests/black_box/middleware_modules.rs")),
    block("docs/extend/middlewares.md", "wit_bindgen", File("tests/black_box/middleware_modules.rs")),
    block(
        "docs/extend/middlewares.md",
        "cd guests/typescript",
        File("tests/black_box/middleware_modules.rs"),
    ),
];

/// Pages, or sections by their headings, of which a test runs every block that is not in [`BLOCKS`]: the page, the heading or
/// nothing, the test.
pub const READ_WHOLE: &[(&str, &str, &str)] = &[
    ("docs/tutorial.md", "", "tests/black_box/tutorial.rs"),
    ("docs/clients/python.md", "", "clients/conformance/guides.py"),
    ("docs/clients/rust.md", "", "clients/conformance/guides.py"),
    ("docs/clients/typescript.md", "", "clients/conformance/guides.py"),
    ("docs/extend/middlewares.md", "Recipes", "tests/black_box/middleware_recipes.rs"),
    ("docs/extend/pull.md", "Recipes", "tests/black_box/pull_recipes.rs"),
    ("docs/extend/archives.md", "Recipe", "tests/black_box/recipes_delivery.rs"),
    ("docs/extend/webhooks.md", "Recipe", "tests/black_box/recipes_delivery.rs"),
];
