//! Tests of what is read of docker's own words.

use std::net::{Ipv4Addr, SocketAddr};

use super::parse::{Bounds, Engine, config, engine, inspected};

/// Shortened from what `docker inspect` of engine 28 says of a container that runs and of one that was killed.
const INSPECTED: &str = r#"[
    {
        "Id": "4f1c0ffee", "Name": "/anetem-0a1b-anode-embedded-2",
        "State": {"Status": "running", "Running": true, "Paused": false, "OOMKilled": false, "Dead": false,
                  "Pid": 4711, "ExitCode": 0},
        "Config": {"Image": "anode:0.1", "Labels": {"com.docker.compose.container-number": "2",
                   "com.docker.compose.project": "anetem-0a1b", "com.docker.compose.service": "anode-embedded"}},
        "HostConfig": {"NanoCpus": 0, "Memory": 2147483648, "MemorySwap": 4294967296},
        "NetworkSettings": {
            "Ports": {"7070/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32769"}], "7946/udp": null},
            "Networks": {"anetem-0a1b_default": {"Aliases": ["anode-embedded"], "IPAddress": "172.18.0.3"}}
        }
    },
    {
        "Id": "badcafe", "Name": "/anetem-0a1b-anode-embedded-1",
        "State": {"Status": "exited", "Running": false, "Paused": false, "OOMKilled": true, "Pid": 0, "ExitCode": 137},
        "Config": {"Labels": null},
        "HostConfig": {"NanoCpus": 50000000, "Memory": 0},
        "NetworkSettings": {"Ports": {}, "Networks": {"anetem-0a1b_default": {"IPAddress": ""}}}
    }
]"#;

#[test]
fn containers_are_read() {
    let all = inspected(INSPECTED).expect("two containers");
    let [running, ended] = &all[..] else { panic!("{all:?}") };
    assert_eq!((running.service(), running.number()), ("anode-embedded", 2));
    assert_eq!(running.pid(), Some(4711));
    assert!(running.has_ended_well().is_err());
    assert_eq!(running.address(), Some(Ipv4Addr::new(172, 18, 0, 3)));
    assert_eq!(running.published(7070), Some(SocketAddr::from(([127, 0, 0, 1], 32769))));
    assert_eq!((running.published(7946), running.published(80)), (None, None));
    assert_eq!(running.bounds(), Bounds { nano_cpus: 0, memory_bytes: 2 << 30 });
    assert_eq!((ended.service(), ended.number()), ("", 0));
    assert_eq!(ended.pid(), None);
    assert!(ended.has_ended_well().is_err_and(|error| error.to_string().contains("exit code 137")));
    assert_eq!(ended.how_ended(), "for lack of memory");
    assert_eq!(ended.networks(), [("anetem-0a1b_default".to_owned(), None)]);
}

#[test]
fn ports_that_are_published_everywhere_are_reached_by_the_loopback() {
    for everywhere in ["0.0.0.0", "::", ""] {
        let json = INSPECTED.replace(r#""HostIp": "127.0.0.1""#, &format!(r#""HostIp": "{everywhere}""#));
        let published = inspected(&json).expect("containers")[0].published(7070);
        assert_eq!(published, Some(SocketAddr::from(([127, 0, 0, 1], 32769))), "{everywhere:?}");
    }
}

#[test]
fn the_machine_of_the_engine_is_read() {
    let json = r#"{"ID":"x","Containers":0,"NCPU":2,"MemTotal":25218584576,"Name":"here","Warnings":null}"#;
    assert_eq!(engine(json).expect("a machine"), Engine { processors: 2, memory_bytes: 25_218_584_576 });
}

#[test]
fn what_is_no_answer_of_docker_is_named() {
    for error in [
        config("").err().map(|error| error.to_string()),
        inspected("{}").err().map(|error| error.to_string()),
        engine("null").err().map(|error| error.to_string()),
    ] {
        assert!(error.is_some_and(|error| error.starts_with("docker ")));
    }
}

#[test]
fn a_service_is_counted_and_its_port_is_known() {
    let json = r#"{"services": {
        "a": {"environment": {"ANODE_HTTP": "0.0.0.0:8080", "ANODE_JOIN": ""}, "scale": 4},
        "b": {"environment": {}, "ports": [{"target": 7070, "published": "7070"}]}
    }}"#;
    let services = config(json).expect("a file").node_services();
    let found: Vec<_> =
        services.iter().map(|each| (each.name.as_str(), each.count, each.http_port())).collect();
    assert_eq!(found, [("a", 4, 8080), ("b", 1, 7070)]);
    assert_eq!(services[0].setting("ANODE_JOIN"), None, "a variable without a value says nothing");
}
