//! Requests that publish.

use super::*;

#[test]
fn publishes_one() {
    let served = Served::start();
    let answer = served.ask("POST", "/v1/publish?ack=stored", r#"{"id":7,"source":"new","data":[1, 2]}"#);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"ts":1000000,"outcome":"applied","level":"stored"}"#)
    );
    assert!(served.get("/v1/sources/new").body.contains("[1, 2]"));
    let post = |body: &str| served.ask("POST", "/v1/publish", body);
    post("{").is_problem(400, "bad_json");
    post("{}").is_problem(400, "bad_request");
    post("[]").is_problem(400, "bad_request");
    post(r#"{"source":"a//b","data":1}"#).is_problem(400, "bad_source");
    post(&format!(r#"{{"source":"a","data":"{}"}}"#, "x".repeat(2000))).is_problem(413, "too_large");
    post(r#"{"source":"lost","data":1}"#).is_problem(503, "overloaded");
    let late = post(r#"{"source":"late","data":1,"ts":3}"#);
    late.is_problem(504, "timeout");
    assert_eq!(
        (late.field("/applied"), late.field("/ts"), late.field("/nodes")),
        (true.into(), 3.into(), 2.into())
    );
    served.ask("POST", "/v1/publish?ack=best", r#"{"source":"a","data":1}"#).is_problem(400, "bad_request");
}

#[test]
fn publishes_a_batch() {
    let served = Served::start();
    let batch = r#"[{"source":"p","data":1},{"id":"x","source":"q","data":2},{"source":"r"}]"#;
    let answer = served.ask("POST", "/v1/publish", batch);
    assert_eq!(answer.status, 200);
    assert_eq!((answer.field("/0/id"), answer.field("/0/index")), ("x".into(), 1.into()));
    assert_eq!(answer.field("/0/result/outcome"), "applied");
    assert_eq!((answer.field("/1/index"), answer.field("/1/error/code")), (2.into(), "bad_request".into()));
    assert!(answer.field("/2").is_null());
    assert!(served.node.records.lock().contains_key("p"));
}
