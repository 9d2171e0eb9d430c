//! Pull sources at a real broker: Mosquitto, as Debian has it. Where there is none, the tests fail and say so.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::command::Background;
use crate::harness::pulls::{MOVED, SOON};
use crate::harness::tls::Authority;
use crate::harness::wait::throughout;
use crate::harness::{Cluster, Node, NodeConfig, eventually, ports};

/// A running broker.
pub struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    process: Background,
}

impl Broker {
    /// Starts a broker with these lines of configuration beside its listener.
    pub fn start(lines: &str) -> Broker {
        let folder = tempfile::tempdir().expect("a folder");
        Broker::start_in(folder, ports::free(), lines)
    }

    fn start_in(folder: tempfile::TempDir, port: u16, lines: &str) -> Broker {
        let config = folder.path().join("mosquitto.conf");
        let text = format!("user root\nlistener {port} 127.0.0.1\npersistence false\n{lines}\n");
        std::fs::write(&config, text).expect("written");
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
        let program = program.into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("these tests need the package mosquitto of Debian");
        let process = Background::start(Command::new(program).arg("-c").arg(&config));
        let broker = Broker { folder, port, process };
        eventually("the broker listens", SOON, || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        broker
    }

    /// The port of the broker.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Publishes a message as any client would.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: u8, is_retained: bool) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the broker");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01t").expect("sent");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [0x20, 2, 0, 0], "the broker takes the publisher");
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        if qos > 0 {
            body.extend_from_slice(&[0, 1]);
        }
        body.extend_from_slice(payload);
        let mut packet = vec![0x30 | qos << 1 | u8::from(is_retained)];
        let mut length = body.len();
        while length >= 128 {
            packet.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        packet.push(length as u8);
        stream.write_all(&packet).and_then(|()| stream.write_all(&body)).expect("sent");
        if qos > 0 {
            stream.read_exact(&mut answer).expect("an acknowledgement");
        }
        let _ = stream.write_all(b"\xe0\0");
        let _ = stream.read(&mut [0; 1]);
    }
}

fn put(node: &Node, name: &str, url: &str, more: &str) {
    node.put_pull(name, &format!("kind = \"mqtt\"\nurl = \"{url}\"\n{more}"));
}

pub fn wait_connected(node: &Node, name: &str) {
    eventually("it is connected", SOON, || node.pull(name)["state"]["last_success"].as_u64().map(drop));
}

#[test]
fn topics_become_sources_and_a_broker_that_comes_back_is_found_again() {
    let mut broker = Broker::start("allow_anonymous true\nmessage_size_limit 200000");
    broker.publish("plant/7/temp", b"20.50", 1, true);
    let node = Node::single();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    put(&node, "whole", &url, "topics = [\"plant/#\"]\nqos = 1\nmax_bytes = 100000");
    let rule = "records = [{ source = \"by/{topic/1}/{/id}\", pointer = \"/v\", ts = \"/t\" }]";
    put(&node, "parts", &url, &format!("topics = [\"other/+/x\"]\n{rule}"));
    let retained = node.wait_data("plant/7/temp", &json!(20.5));
    assert!(node.get("/v1/sources/plant/7/temp").body.contains("20.50"), "data is passed on verbatim");
    wait_connected(&node, "whole");
    wait_connected(&node, "parts");
    broker.publish("plant/8/state", b"running", 0, false);
    node.wait_data("plant/8/state", &json!("running"));
    broker.publish("plant/8/raw", b"\xff\xfe", 1, false);
    eventually("bytes are binary data", SOON, || {
        node.latest("plant/8/raw").filter(|record| record["data_b64"] == "//4=")
    });
    broker.publish("other/9/x", br#"{"id":"k","v":[1],"t":1763800000}"#, 1, false);
    assert_eq!(node.wait_data("by/9/k", &json!([1]))["ts"], 1_763_800_000_000_000u64);
    broker.publish("plant/large", &vec![b'1'; 180_000], 1, false);
    node.wait_pull_error("whole", "more than 100000 bytes");
    broker.publish("plant//odd", b"1", 1, false);
    node.wait_pull_error("whole", "has a segment that is empty");
    for n in 0..200 {
        broker.publish("plant/n", n.to_string().as_bytes(), 1, false);
    }
    node.wait_data("plant/n", &json!(199));
    assert_eq!(node.history_of("plant/n").len(), 200, "every message, in order");
    // The broker goes and comes back; what it kept is no news.
    broker.process.kill();
    node.wait_pull_error("whole", "");
    let Broker { folder, port, .. } = broker;
    let broker = Broker::start_in(folder, port, "allow_anonymous true");
    broker.publish("plant/7/temp", b"20.50", 1, true);
    let wait = Duration::from_secs(60);
    eventually("it is connected again", wait, || {
        broker.publish("plant/again", b"1", 1, false);
        node.latest("plant/again").map(drop)
    });
    throughout("the retained value is not new", Duration::from_millis(500), || {
        node.latest("plant/7/temp").is_some_and(|record| record["ts"] == retained["ts"])
    });
}

#[test]
fn names_and_passwords_come_from_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, "").expect("written");
    let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args(["me", "hunter2"]).status();
    assert!(made.is_ok_and(|status| status.success()), "mosquitto_passwd makes a file of passwords");
    let lines = format!("allow_anonymous false\npassword_file {}", passwords.display());
    let broker = Broker::start(&lines);
    let node =
        Node::start(NodeConfig::named("a").with_variable("RIGHT", "hunter2").with_variable("WRONG", "x"));
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let more = |variable: &str| format!("topics = [\"#\"]\nusername = \"me\"\npassword = \"env:{variable}\"");
    put(&node, "right", &url, &more("RIGHT"));
    put(&node, "wrong", &url, &more("WRONG"));
    put(&node, "missing", &url, &more("MISSING"));
    wait_connected(&node, "right");
    node.wait_pull_error("wrong", "the broker refuses the connection");
    eventually("nobody has the variable", SOON, || {
        (node.pull("missing")["cannot"]["a"] == "MISSING is not set in the environment").then_some(())
    });
    assert!(!node.get("/v1/pull").body.contains("hunter2") && !node.log().contains("hunter2"));
}

#[test]
fn brokers_over_tls_are_verified() {
    let authority = Authority::new("brokers");
    authority.write(&authority.pair("broker", &["localhost"]));
    let (ca, port) = (authority.file("ca.pem"), ports::free());
    let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
    let lines = format!("allow_anonymous true\nlistener {port} 127.0.0.1\ncertfile {cert}\nkeyfile {key}");
    let broker = Broker::start(&lines);
    let node = Node::single();
    let topics = "topics = [\"t/#\"]\n";
    put(&node, "trusted", &format!("mqtts://localhost:{port}"), &format!("{topics}ca = \"{ca}\""));
    put(&node, "unknown", &format!("mqtts://localhost:{port}"), topics);
    put(&node, "misnamed", &format!("mqtts://127.0.0.1:{port}"), &format!("{topics}ca = \"{ca}\""));
    wait_connected(&node, "trusted");
    broker.publish("t/x", b"{\"a\":1}", 1, false);
    node.wait_data("t/x", &json!({"a": 1}));
    node.wait_pull_error("unknown", "");
    node.wait_pull_error("misnamed", "certificate");
    assert_eq!(node.history_of("t/x").len(), 1, "published once, by the one that is connected");
}

/// One member is connected to the broker. When it dies, the other one subscribes, and what comes then is published.
#[test]
fn another_member_subscribes_when_the_runner_dies() {
    let broker = Broker::start("allow_anonymous true");
    let mut cluster = Cluster::start(2);
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    put(&cluster[0], "bridge", &url, "topics = [\"plant/#\"]\nqos = 1");
    wait_connected(&cluster[0], "bridge");
    broker.publish("plant/n", b"1", 1, false);
    cluster.nodes.iter().for_each(|node| drop(node.wait_data("plant/n", &json!(1))));
    let runner = cluster[0].pull("bridge")["runner"].as_str().expect("a runner").to_owned();
    let dead = cluster.nodes.iter().position(|node| node.id == runner).expect("a node");
    cluster[dead].kill9();
    let other = &cluster[1 - dead];
    let mut number = 1;
    eventually("the other member gets messages", MOVED, || {
        number += 1;
        broker.publish("plant/n", number.to_string().as_bytes(), 1, false);
        (other.latest("plant/n")?["data"].as_u64() > Some(1)).then_some(())
    });
    eventually("it says that it runs it", SOON, || {
        let told = other.pull("bridge");
        (told["runner"] == other.id.as_str() && told["state"]["runner"] == other.id.as_str()).then_some(())
    });
}
