//! The lines in the documentation that close a cluster: certificates, keys, and the secrets for Kubernetes.

use std::os::unix::fs::PermissionsExt as _;

use super::commands::words;
use super::terminal::run_in;
use super::{block_of, root};
use crate::harness::tls::Authority;
use crate::harness::wait::PATIENCE;
use crate::harness::{Cluster, anode, eventually, ports};

const SECURITY: &str = "docs/security.md";

#[test]
fn a_node_with_a_certificate_is_read_by_a_client_that_trusts_it() {
    let authority = Authority::new("an authority for tests");
    authority.write(&authority.of_node());
    let folder = authority.path("");
    let address = format!("127.0.0.1:{}", ports::free());
    let serve = block_of(SECURITY, "anode serve --http 0.0.0.0:7070").replace("0.0.0.0:7070", &address);
    let sub = block_of(SECURITY, "anode sub").replace("node1.example:7070", &address);
    let lines = format!(
        "trap 'kill $(jobs -p)' EXIT\n\
         {} --gossip 127.0.0.1:{} --store memory >log 2>&1 &\n\
         until anode health --ready --url https://{address} --ca ca.pem; do sleep 0.2; done\n\
         anode pub sensors/7/temp 21.5 --url wss://{address} --ca ca.pem\n\
         {} --count 1\n",
        serve.trim(),
        ports::free(),
        sub.trim(),
    );
    let told = run_in(&folder, &lines, &address);
    assert!(told.contains("\"source\":\"sensors/7/temp\"") && told.contains("\"data\":21.5"), "{told}");
}

#[test]
fn a_new_key_seals_a_cluster_and_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = block_of(SECURITY, "anode keys new");
    let (made, serve) = lines.trim().rsplit_once('\n').expect("several lines");
    // These lines ask no node.
    run_in(folder.path(), made, "127.0.0.1:9");
    let serve = words(serve);
    assert_eq!(serve, ["anode", "serve", "--cluster-key", "cluster.key", "…"]);
    let file = folder.path().join(&serve[3]);
    let mode = std::fs::metadata(&file).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = file.display().to_string();
    let cluster = Cluster::start_with(2, &[serve[2].as_str(), file.as_str()]);
    let url = format!("http://{}", cluster[0].http);
    // A node that has just been started may not have told its keys.
    let told = eventually("both have told their keys", PATIENCE, || {
        let told = anode(&["keys", "--url", &url]).stdout;
        (told.matches(" require").count() == 2).then_some(told)
    });
    let shown = block_of(SECURITY, "ID  STATE");
    let (told, shown) = (table(&told), table(&shown));
    assert_eq!(told[0], shown[0], "the names of the columns");
    assert_eq!(told.len(), shown.len());
    for (told, shown) in told.iter().zip(&shown) {
        assert_eq!((told.len(), &told[..2]), (shown.len(), &shown[..2]), "{told:?}");
    }
}

/// The words of every line of a table.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// No cluster of Kubernetes is here, so the files are made that its lines name, and it is not asked.
#[test]
fn the_secrets_for_kubernetes_are_made_under_the_names_that_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(root().join("deploy"), folder.path().join("deploy")).expect("the scripts");
    let lines = block_of("docs/operation.md", "deploy/secrets secrets");
    let (made, given) = lines.split_once('\n').expect("several lines");
    run_in(folder.path(), made, "127.0.0.1:9");
    let files: Vec<&str> = given
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--from-file=").or(word.strip_prefix("deploy/").map(|_| word)))
        .collect();
    assert_eq!(files.len(), 5, "{given}");
    for file in files {
        assert!(folder.path().join(file).exists(), "there is no {file}");
    }
}
