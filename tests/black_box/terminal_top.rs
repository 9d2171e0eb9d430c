//! `anode top` and `anode demo`, as scripts and as people at a terminal see them.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::command::{Background, binary};
use crate::harness::{Cluster, Node, NodeConfig, Output, anode, eventually, json as parse, ports};
use crate::snippets::block_of;

/// Runs a command line of the shell on a terminal of 80 columns and 24 lines for some seconds, and returns all that it
/// wrote there.
pub fn on_a_terminal(line: &str, seconds: u32) -> Output {
    let line = format!("stty cols 80 rows 24; timeout --foreground -s INT {seconds} {line}");
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANODE_") {
            command.env_remove(name);
        }
    }
    let mut running = Background::start(&mut command);
    let code = running.wait(Duration::from_secs(60));
    Output { code, stdout: running.stdout(), stderr: running.stderr() }
}

#[test]
fn top_shows_members_rates_and_the_hottest_sources() {
    let cluster = Cluster::start(2);
    let url = format!("http://{}", cluster[0].http);
    let mut load = cluster[0].publisher();
    let running = Background::start(binary().args(["top", "--json", "--interval", "3", "--url", &url]));
    let mut running = running;
    let mut step = 0;
    eventually("it ends by itself", Duration::from_secs(40), || {
        for _ in 0..10 {
            step += 1;
            load.send_json(json!({"source": "hot/one", "data": step}));
        }
        load.send_json(json!({"source": "hot/two", "data": step}));
        (!running.is_running()).then_some(())
    });
    assert_eq!(running.wait(Duration::from_secs(5)), Some(0), "{}", running.stderr());
    let told = parse(running.stdout().trim());
    let members = told["members"].as_array().expect("members");
    assert_eq!(members.len(), 2, "{told}");
    assert!(members.iter().all(|member| member["state"] == "alive"), "{told}");
    assert!(members.iter().all(|member| member["figures"]["resident_bytes"].as_f64() > Some(1e6)), "{told}");
    assert!(told["total"]["published"].as_f64() > Some(10.0), "{told}");
    assert_eq!(told["hottest"][0]["source"], "hot/one", "{told}");
    let once = anode(&["top", "--once", "--url", &url]);
    assert_eq!(once.code, Some(0), "{once:?}");
    for word in ["2 members, 2 alive", "pub/s", "prop p99", &cluster[1].id] {
        assert!(once.stdout.contains(word), "{word} in {}", once.stdout);
    }
    let nowhere = format!("http://127.0.0.1:{}", ports::free());
    assert_eq!(anode(&["top", "--once", "--url", &nowhere]).code, Some(1));
}

/// Members that share the name of a service were shown with the figures of whoever answered there, each several times.
#[test]
fn members_that_share_an_address_have_no_figures() {
    let first = NodeConfig::named("first").in_memory();
    let shared = first.http.clone();
    let first = Node::start(first.with(&["--advertise-http", &shared]));
    let other = NodeConfig::joining("other", &first).in_memory().with(&["--advertise-http", &shared]);
    let other = Node::start(other);
    first.wait_member(&other.id, "alive", Duration::from_secs(20));
    let url = format!("http://{shared}");
    let told = parse(anode(&["top", "--once", "--json", "--url", &url]).stdout.trim());
    let members = told["members"].as_array().expect("members");
    assert_eq!(members.len(), 2, "{told}");
    assert!(members.iter().all(|member| member["http"] == shared && member["figures"].is_null()), "{told}");
    let doctor = anode(&["doctor", "--json", "--url", &url]);
    assert!(doctor.stdout.contains("other members tell clients its address"), "{doctor:?}");
    // No conclusion is drawn for one member from what another one answers, so nothing is wrong.
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
}

#[test]
fn top_draws_on_a_terminal() {
    let cluster = Cluster::start(2);
    let url = format!("http://{}", cluster[0].http);
    let top = format!("{} top --url {url}", env!("CARGO_BIN_EXE_anode"));
    let output = on_a_terminal(&top, 4);
    // Blanks in plain text are not written: the cursor is moved over them.
    for word in ["anode top", "alive;", "hottest sources", "quit", "prop"] {
        assert!(output.stdout.contains(word), "{word} in {output:?}");
    }
    // Number 2 of the palette is green.
    let green = "\x1b[38;5;2;";
    assert!(output.stdout.contains(green), "{output:?}");
    assert!(output.stdout.contains("\x1b[?1049l"), "the terminal is left as it was: {output:?}");
    let plain = on_a_terminal(&format!("env NO_COLOR=1 {top}"), 4);
    assert!(plain.stdout.contains("alive") && !plain.stdout.contains(green), "{plain:?}");
}

#[test]
fn the_demo_tells_its_page_and_that_nothing_is_lost() {
    let lines = block_of("README.md", "cargo run --release -- demo");
    let words =
        lines.lines().next().and_then(|line| line.split(" -- ").nth(1)).expect("words for the program");
    let words = words.split_whitespace().take_while(|word| *word != "#");
    let mut demo = Background::start(binary().args(words).args(["--seconds", "120"]));
    let page = eventually("it names its page", Duration::from_secs(40), || {
        let said = demo.stdout();
        let line = said.lines().find_map(|line| line.strip_prefix("Open "))?.to_owned();
        Some(line)
    });
    assert!(page.starts_with("http://127.0.0.1:") && page.ends_with('/'), "{page}");
    eventually("node-2 has caught up", Duration::from_secs(60), || {
        demo.stdout().contains("node-2 has caught up").then_some(())
    });
    let said = demo.stdout();
    assert!(said.contains("node-2 was killed"), "{said}");
    demo.signal("INT");
    assert_eq!(demo.wait(Duration::from_secs(30)), Some(0), "{}", demo.stderr());
    let last = said.lines().rfind(|line| line.contains("records: ")).unwrap_or_default().to_owned();
    assert!(last.contains("missing: 0") && last.contains("repeated: 0"), "{last}");
    let records = last.split("records: ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(records.and_then(|count| count.parse::<u64>().ok()) > Some(500), "{last}");
    assert!(
        said.lines().filter(|line| !line.contains("records: ")).all(|line| line.chars().count() <= 80),
        "{said}"
    );
}

#[test]
fn the_demo_fits_a_terminal_and_says_that_a_port_is_taken() {
    // If another test has the port, it is taken, too.
    let held = std::net::TcpListener::bind("127.0.0.1:7070");
    let output = on_a_terminal(&format!("env NO_COLOR=1 {} demo", env!("CARGO_BIN_EXE_anode")), 15);
    drop(held);
    let picture = output.stdout.rsplit("\x1b[H").next().unwrap_or_default().replace("\x1b[K", "");
    let lines: Vec<&str> = picture.split("\r\n").map(|line| line.trim_end_matches(['\r', '\n'])).collect();
    // The last one is where the cursor stays, below the picture.
    assert!(lines.len() <= 24, "{} lines: {picture}", lines.len());
    for line in &lines {
        let line = line.replace("\x1b[J", "");
        assert!(line.chars().count() <= 80, "{line:?}");
        assert!(!line.contains('\x1b') || line.contains("^C"), "NO_COLOR: {line:?}");
    }
    for word in ["Open http://127.0.0.1:", "Missing: 0", "127.0.0.1:7070 is taken"] {
        assert!(picture.contains(word), "{word} in {picture}");
    }
}
