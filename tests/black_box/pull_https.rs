//! Pull sources over HTTPS: the certificate of a server is verified.

use serde_json::json;

use crate::harness::receiver::{Reaction, Receiver};
use crate::harness::tls::Authority;
use crate::harness::{Node, ports};

/// A server whose certificate no authority of the system has signed is asked by a definition that names its authority, and by
/// none without it.
#[test]
fn servers_over_tls_are_verified() {
    let authority = Authority::new("pull");
    let addr = format!("127.0.0.1:{}", ports::free());
    let server = Receiver::at(&addr, Some(&authority.of_node()), |_| {
        let kind = ("Content-Type".to_owned(), "application/json".to_owned());
        Reaction::Answer(200, vec![kind], br#"{"source":"secure","data":1}"#.to_vec())
    });
    let node = Node::single();
    let text = format!("kind = \"http\"\nevery = \"200ms\"\nurl = \"https://{addr}/");
    node.put_pull("stranger", &format!("{text}stranger\"\n"));
    node.wait_pull_error("stranger", "invalid peer certificate: UnknownIssuer");
    assert_eq!(node.latest("secure"), None);
    let ca = authority.file("ca.pem");
    node.put_pull("trusted", &format!("{text}trusted\"\nca = \"{ca}\"\n"));
    node.wait_data("secure", &json!(1));
    let asked = server.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.path == "/trusted"), "{asked:?}");
}
