//! JWTs that others issue: every algorithm, what is refused, when they end, and how they are refreshed.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::{connect, read_all};
use crate::harness::rights::{RightsFile, base64url, hmac, jwt, key_file};
use crate::harness::{Client, Http, Node, NodeConfig, eventually, wall_us};

const SECRET: &str = "a secret of HS256 that is long enough for it";

fn now_s() -> u64 {
    wall_us() / 1_000_000
}

/// The claims of a token that ends in an hour, changed by `change`.
fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": "https://id.example", "aud": ["anode", "other"], "sub": "device-7", "exp": now_s() + 3_600,
        "anode": {"publish": ["sensors/**"], "subscribe": ["sensors/**"], "observe": true},
    });
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().map(|claims| claims.remove(name));
        }
    }
    claims
}

fn start(lines: &str, keys: &[&str]) -> (Node, RightsFile) {
    let rights = RightsFile::new("");
    keys.iter().for_each(|key| rights.add_key(key));
    rights.write_file("hmac", format!("{SECRET}\n").as_bytes());
    rights.write(&format!("[jwt]\n{lines}\nissuer = \"https://id.example\"\naudience = \"anode\"\n"));
    let config = NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]);
    (Node::start(config), rights)
}

const PEM: &str =
    "keys = [\"ed25519.pub.pem\", \"p256.pub.pem\", \"rsa.pub.pem\"]\nhmac_secret_file = \"hmac\"";
const PEM_FILES: [&str; 3] = ["ed25519.pub.pem", "p256.pub.pem", "rsa.pub.pem"];
const ALGORITHMS: [(&str, &str); 4] =
    [("EdDSA", "ed25519"), ("ES256", "p256"), ("RS256", "rsa"), ("HS256", SECRET)];

fn status(node: &Node, token: &str) -> u16 {
    Http::with_token(&node.http, "GET", "/v1/members", token).status
}

#[test]
fn any_of_the_keys_may_have_signed() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    for (algorithm, key) in ALGORITHMS {
        let token = jwt(json!({"alg": algorithm, "typ": "JWT"}), claims(json!({})), key);
        for _ in 0..2 {
            assert_eq!(status(&node, &token), 200, "{algorithm}");
        }
        let mut client = Client::open(&node.http, "/publish");
        let exp = claims(json!({}))["exp"].as_u64().unwrap_or_default();
        let answer = client.ask(json!({"id": 1, "auth": {"token": token}}));
        assert_eq!(answer["result"]["name"], "device-7", "{answer}");
        assert!(answer["result"]["expires"].as_u64().is_some_and(|end| end.abs_diff(exp) < 60), "{answer}");
        assert_eq!(client.publish(json!({"source": "sensors/1", "data": 1}))["result"]["level"], "accepted");
        assert_eq!(client.publish(json!({"source": "x", "data": 1}))["error"]["code"], "forbidden");
        assert_eq!(client.publish(json!({"source": "$x", "data": 1}))["error"]["code"], "forbidden");
    }
    // A rate is one of the name: all connections with a token of this name share it.
    let limited = json!({"sub": "limited", "anode": {"publish": ["**"], "rate": 3}});
    let mut codes = Vec::new();
    for round in 0..2 {
        let token = jwt(json!({"alg": "EdDSA"}), claims(limited.clone()), "ed25519");
        let mut client = Client::with_token(&node.http, "/publish", &token);
        codes.extend((0..6).map(|number| client.publish(json!({"source": "l", "data": [round, number]}))));
    }
    let refused = codes.iter().filter(|answer| answer["error"]["code"] == "rate_limited").count();
    assert!((4..=9).contains(&refused), "{codes:?}");
    // A token without rights of this node is known, and may do nothing.
    let token = jwt(json!({"alg": "EdDSA"}), claims(json!({"anode": null})), "ed25519");
    assert_eq!(status(&node, &token), 403);
}

#[test]
fn a_set_of_jwks_is_taken_with_its_names() {
    let (node, _rights) = start("jwks = \"jwks.json\"", &["jwks.json"]);
    for (algorithm, key, id) in
        [("EdDSA", "ed25519", "ed-1"), ("ES256", "p256", "ec-1"), ("RS256", "rsa", "rsa-1")]
    {
        let token = |id: Value| {
            let mut header = json!({"alg": algorithm});
            if !id.is_null() {
                header["kid"] = id;
            }
            jwt(header, claims(json!({})), key)
        };
        assert_eq!(status(&node, &token(json!(id))), 200, "{id}");
        assert_eq!(status(&node, &token(Value::Null)), 200, "{id} unnamed");
        assert_eq!(status(&node, &token(json!("other"))), 401, "a key that is not there");
    }
    let token = jwt(json!({"alg": "RS256", "kid": "enc-1"}), claims(json!({})), "rsa");
    assert_eq!(status(&node, &token), 401, "a key for encryption signs nothing");
}

/// RFC 8725: `none`, mixed-up algorithms, foreign keys, and claims that must be checked.
#[test]
fn what_rfc_8725_warns_of_is_refused() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    let signed = |change: Value| jwt(json!({"alg": "EdDSA"}), claims(change), "ed25519");
    let header = |header: Value, key: &str| jwt(header, claims(json!({})), key);
    let unsigned = |algorithm: &str| {
        let parts = [json!({"alg": algorithm}).to_string(), claims(json!({})).to_string()];
        format!("{}.{}.", base64url(parts[0].as_bytes()), base64url(parts[1].as_bytes()))
    };
    let good = signed(json!({}));
    assert_eq!(status(&node, &good), 200);
    let public = key_file("rsa.pub.pem");
    let mixed_up = |secret: &[u8]| {
        let message = header(json!({"alg": "HS256"}), SECRET);
        let (message, _) = message.rsplit_once('.').unwrap_or_default();
        format!("{message}.{}", base64url(&hmac(secret, message.as_bytes())))
    };
    let (message, signature) = good.rsplit_once('.').unwrap_or_default();
    let (head, _) = message.split_once('.').unwrap_or_default();
    let other = base64url(claims(json!({"sub": "root", "anode": {"admin": true}})).to_string().as_bytes());
    let refused = [
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("no signature", unsigned("EdDSA")),
        ("a public key as the secret", mixed_up(&public)),
        ("a public key as the secret, without its last line break", mixed_up(public.trim_ascii_end())),
        ("another algorithm of the same kind", header(json!({"alg": "RS512"}), "rsa")),
        ("the algorithm of another key", header(json!({"alg": "ES256"}), "ed25519")),
        ("a foreign key", header(json!({"alg": "EdDSA"}), "stranger")),
        ("other claims", format!("{head}.{other}.{signature}")),
        ("a critical field", header(json!({"alg": "EdDSA", "crit": ["x"], "x": 1}), "ed25519")),
        ("no exp", signed(json!({"exp": null}))),
        ("exp in the past", signed(json!({"exp": now_s() - 5}))),
        ("exp is a text", signed(json!({"exp": "2999-01-01"}))),
        ("exp is negative", signed(json!({"exp": -1}))),
        ("nbf in the future", signed(json!({"nbf": now_s() + 600}))),
        ("nbf is a text", signed(json!({"nbf": "x"}))),
        ("another issuer", signed(json!({"iss": "https://evil.example"}))),
        ("no issuer", signed(json!({"iss": null}))),
        ("another audience", signed(json!({"aud": "other"}))),
        ("no audience", signed(json!({"aud": null}))),
        ("a bad pattern", signed(json!({"anode": {"publish": ["a//b"]}}))),
        ("a bad rate", signed(json!({"anode": {"publish": ["a"], "rate": 0}}))),
        ("two parts", message.to_owned()),
        ("no JSON", "a.b.c".to_owned()),
    ];
    for (what, token) in refused {
        let answer = Http::with_token(&node.http, "GET", "/v1/members", &token);
        answer.assert_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
    }
    for fine in [json!({"aud": "anode"}), json!({"nbf": now_s() + 3}), json!({"exp": now_s() as f64 + 100.5})]
    {
        assert_eq!(status(&node, &signed(fine.clone())), 200, "{fine}");
    }
}

/// The claim `anode` gives every right that the file can give, `admin` included. Without that, no pattern in it opens the
/// system's names.
#[test]
fn a_token_may_make_its_holder_an_admin() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    let token = |rights: Value| jwt(json!({"alg": "EdDSA"}), claims(json!({"anode": rights})), "ed25519");
    let admin = token(json!({"admin": true}));
    let other = token(json!({"publish": ["**", "$sys/**"], "subscribe": ["**"], "observe": true}));
    let forget = |token: &str| Http::with_token(&node.http, "POST", "/v1/admin/forget/b", token);
    forget(&other).assert_problem(403, "forbidden");
    forget(&admin).assert_problem(404, "not_found");
    let publish = |token: &str, data: &str| {
        let mut client = Client::with_token(&node.http, "/publish", token);
        client.publish(json!({"source": "$sys/x", "data": data}))
    };
    assert_eq!(publish(&other, "other")["error"]["code"], "forbidden");
    assert_eq!(publish(&admin, "admin")["result"]["outcome"], "applied");
    let answer = Http::with_token(&node.http, "GET", "/v1/sources/$sys/x", &other);
    assert_eq!(answer.json()["data"], "admin", "who may observe reads them: {answer:?}");
}

/// What was proven of a token is remembered, but not beyond its end.
#[test]
fn a_token_that_was_let_in_is_refused_once_it_has_expired() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    let token = jwt(json!({"alg": "EdDSA"}), claims(json!({"exp": now_s() + 3})), "ed25519");
    assert_eq!(status(&node, &token), 200);
    let answer = eventually("it has expired", Duration::from_secs(10), || {
        let answer = Http::with_token(&node.http, "GET", "/v1/members", &token);
        (answer.status != 200).then_some(answer)
    });
    answer.assert_problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
}

#[test]
fn a_connection_ends_with_its_token_unless_a_fresh_one_comes() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    let ending =
        |seconds: u64| jwt(json!({"alg": "EdDSA"}), claims(json!({"exp": now_s() + seconds})), "ed25519");
    let mut left = Client::with_token(&node.http, "/subscribe?source=sensors/**", &ending(3));
    let mut refreshed = Client::with_token(&node.http, "/subscribe?source=sensors/**", &ending(3));
    left.snapshot();
    refreshed.snapshot();
    let fresh = ending(3_600);
    let answer = refreshed.ask(json!({"id": 9, "auth": {"token": fresh}}));
    assert_eq!(answer["result"]["name"], "device-7", "{answer}");
    let start = crate::harness::Deadline::after(Duration::from_secs(20));
    assert_eq!(left.next()["error"]["code"], "unauthorized");
    assert_eq!(left.close_code(), 4001);
    assert!(start.elapsed() < Duration::from_secs(6), "closed after {:?}", start.elapsed());
    refreshed.assert_silent(Duration::from_secs(2));
    let mut publisher = Client::with_token(&node.http, "/publish", &ending(2));
    assert_eq!(publisher.close_code(), 4001);
    // A fresh token that is none closes the connection.
    refreshed.send_json(json!({"id": 10, "auth": {"token": "wrong"}}));
    assert_eq!(refreshed.next()["error"]["code"], "unauthorized");
    assert_eq!(refreshed.close_code(), 4001);
}

/// A stream of events ends with its token, and says why.
#[test]
fn a_stream_of_events_ends_with_its_token() {
    let (node, _rights) = start(PEM, &PEM_FILES);
    let ends_s = now_s() + 3;
    let token = jwt(json!({"alg": "EdDSA"}), claims(json!({"exp": ends_s})), "ed25519");
    let mut stream = connect(&node.http);
    let request = format!(
        "GET /v1/stream?source=sensors/** HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    assert!(stream.write_all(request.as_bytes()).is_ok());
    let told = String::from_utf8_lossy(&read_all(&mut stream, Duration::from_secs(10))).into_owned();
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("event: eos\n"), "{told}");
    let (_, last) = told.split_once("event: refused\n").unwrap_or_else(|| panic!("{told}"));
    assert!(last.contains("\"unauthorized\""), "{told}");
    assert!(now_s() >= ends_s, "it ended before its time");
}

#[test]
fn a_key_that_is_taken_away_ends_what_it_has_signed() {
    let rights = RightsFile::new("[jwt]\nkeys = [\"key.pem\"]\n");
    rights.write_file("key.pem", &key_file("ed25519.pub.pem"));
    let config = NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]);
    let node = Node::start(config);
    let token = jwt(json!({"alg": "EdDSA"}), claims(json!({})), "ed25519");
    let mut client = Client::with_token(&node.http, "/publish", &token);
    assert_eq!(client.publish(json!({"source": "sensors/1", "data": 1}))["result"]["outcome"], "applied");
    rights.write_file("key.pem", &key_file("p256.pub.pem"));
    eventually("the key is gone", Duration::from_secs(10), || (status(&node, &token) == 401).then_some(()));
    assert_eq!(client.close_code(), 4001);
    let token = jwt(json!({"alg": "ES256"}), claims(json!({})), "p256");
    assert_eq!(status(&node, &token), 200);
}
