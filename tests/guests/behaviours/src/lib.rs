//! A middleware that does what the data of a record says, good or bad, for the tests of the engine. The compiled form
//! beside the tests is made by `tests/guests/build`.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpStream;
use std::time::SystemTime;

wit_bindgen::generate!({ path: "../../../wit", world: "middleware" });

use anode::middleware::node;
use anode::middleware::types::Payload;

struct Behaviours;

impl Guest for Behaviours {
    fn handle(input: DataRecord) -> Verdict {
        let Payload::Json(text) = &input.payload else {
            return Verdict::Replace(DataRecord { payload: Payload::Binary(vec![1, 2, 255]), ..input });
        };
        let order = text.trim_matches('"').to_owned();
        let with = |source: &str, json: String| {
            DataRecord { source: source.to_owned(), payload: Payload::Json(json), ..input.clone() }
        };
        let (word, rest) = order.split_once(' ').unwrap_or((&order, ""));
        match word {
            "pass" => Verdict::Pass,
            "drop" => Verdict::Drop,
            "reject" => Verdict::Reject(rest.to_owned()),
            "replace" => Verdict::Replace(with(&input.source, rest.to_owned())),
            "rename" => Verdict::Replace(with(rest, "1".to_owned())),
            "many" => {
                let count: usize = rest.parse().unwrap_or(0);
                Verdict::Many((0..count).map(|at| with(&format!("{}/{at}", input.source), at.to_string())).collect())
            }
            "twice" => Verdict::Many(vec![with(&input.source, "1".into()), with(rest, "2".into())]),
            "large" => Verdict::Replace(with(&input.source, format!("\"{}\"", "x".repeat(rest.parse().unwrap_or(0))))),
            "look" => {
                let held = node::latest(rest).map(|record| match record.payload {
                    Payload::Json(text) => text,
                    Payload::Binary(bytes) => bytes.len().to_string(),
                });
                let told = (node::token(), node::now() > 0);
                let told = format!("[{},{:?},{}]", held.unwrap_or("null".into()), told.0, told.1);
                Verdict::Replace(with(&input.source, told))
            }
            "hash" => {
                let map: HashMap<&str, usize> = HashMap::from([("a", 1)]);
                Verdict::Replace(with(&input.source, map["a"].to_string()))
            }
            "panic" => panic!("asked to"),
            "loop" => loop {
                std::hint::black_box(());
            },
            "memory" => {
                let mut held = Vec::new();
                loop {
                    held.push(vec![1u8; 1 << 20]);
                    std::hint::black_box(&held);
                }
            }
            "stack" => Verdict::Replace(with(&input.source, deep(1).to_string())),
            "clock" => Verdict::Replace(with(&input.source, format!("{:?}", SystemTime::now()))),
            "file" => Verdict::Replace(with(&input.source, File::open("/etc/passwd").is_ok().to_string())),
            "network" => {
                Verdict::Replace(with(&input.source, TcpStream::connect("127.0.0.1:1").is_ok().to_string()))
            }
            _ => Verdict::Pass,
        }
    }
}

fn deep(level: u64) -> u64 {
    std::hint::black_box(deep(std::hint::black_box(level + 1))) + 1
}

export!(Behaviours);
