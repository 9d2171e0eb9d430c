//! The settings and the files of rights in the documentation are taken by a node.

use serde_json::{Value, json};

use super::reference::first_json;
use super::{block_of, root};
use crate::harness::rights::{RightsFile, jwt, sha256_hex};
use crate::harness::{Http, Node, NodeConfig, anode};

#[test]
fn settings_in_the_pages_are_settings() {
    let told = anode(&["serve", "--help"]).stdout;
    for line in block_of("docs/operation.md", "ANODE_HTTP=").lines() {
        let name = line.split('=').next().unwrap_or_default();
        let flag = name.trim_start_matches("ANODE_").to_lowercase().replace('_', "-");
        assert!(told.contains(&format!("--{flag} ")), "{line}");
    }
    let rights = block_of("docs/security.md", "[anonymous]");
    let mut parts = rights.split("\"…\"");
    let mut file = parts.next().unwrap_or_default().to_owned();
    for (at, part) in parts.enumerate() {
        file.push_str(&format!("\"{}\"{part}", sha256_hex(&at.to_string())));
    }
    let file = RightsFile::new(&file);
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
    // The example has the hash of this word.
    let put = Http::with_token(&node.http, "PUT", "/v1/sources/sensors/1", "test");
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(Http::with_token(&node.http, "GET", "/v1/sources/sensors/1", "0").status, 200);
    assert_eq!(node.get("/v1/sources/sensors/1").status, 401);
}

#[test]
fn the_issuer_of_the_pages_is_believed() {
    let jwt_table = block_of("docs/security.md", "[jwt]");
    let keys = root().join("tests/keys");
    let mut claims = first_json(&block_of("docs/security.md", "{\"iss\"").replace('\n', " "));
    claims["exp"] = json!(crate::harness::wall_us() / 1_000_000 + 600);
    // The lines that begin with "or" are other ways to say whose keys are meant.
    for kept in ["keys = ", "jwks = "] {
        let is_kept = |line: &&str| {
            let is_key =
                ["keys = ", "jwks = ", "hmac_secret_file = "].iter().any(|key| line.starts_with(key));
            !is_key || line.starts_with(kept)
        };
        let file = RightsFile::new(&jwt_table.lines().filter(is_kept).collect::<Vec<_>>().join("\n"));
        for (name, copy) in [("ed25519.pub.pem", "issuer.pem"), ("jwks.json", "jwks.json")] {
            std::fs::copy(keys.join(name), file.file(copy)).expect("a key");
        }
        let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &file.path()]));
        let header = match kept {
            "keys = " => json!({"alg": "EdDSA"}),
            _ => json!({"alg": "EdDSA", "kid": kid_of_ed25519()}),
        };
        let token = jwt(header, claims.clone(), "ed25519");
        let put = Http::with_token(&node.http, "PUT", "/v1/sources/sensors/7/temp", &token);
        assert_eq!(put.status, 200, "{}", put.body);
        assert_eq!(Http::with_token(&node.http, "PUT", "/v1/sources/sensors/8/temp", &token).status, 403);
    }
}

/// Name of the Ed25519 key in the tests' set of JWKs.
fn kid_of_ed25519() -> Value {
    let text = std::fs::read_to_string(root().join("tests/keys/jwks.json")).expect("the keys");
    let set = crate::harness::json(&text);
    let keys = set["keys"].as_array().expect("keys");
    keys.iter().find(|key| key["kty"] == "OKP").expect("an Ed25519 key")["kid"].clone()
}
