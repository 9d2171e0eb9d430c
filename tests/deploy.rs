//! Checks the files with which nodes are run as services: the unit of systemd, docker compose, the Kubernetes manifests,
//! and the script that makes their secrets.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that a node needs, each with the setting that names it.
const SECRETS: [(&str, &str); 4] = [
    ("ANODE_CLUSTER_KEY", "cluster.key"),
    ("ANODE_TLS_CERT", "tls.crt"),
    ("ANODE_TLS_KEY", "tls.key"),
    ("ANODE_AUTH", "auth.toml"),
];

/// Lines of the unit that keep the node from what it does not need.
const CONFINED: [&str; 18] = [
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "RestrictNamespaces=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn the_unit_leaves_the_node_only_what_it_needs() {
    let unit = read("deploy/systemd/anode.service");
    let lines = lines(&unit);
    for line in CONFINED {
        assert!(lines.contains(line), "{line}");
    }
    // A second line of this kind would add to the first or take away from it.
    let filters = lines.iter().filter(|line| line.starts_with("SystemCallFilter=")).count();
    assert_eq!(filters, 2);
    for forbidden in ["User=root", "Restart=no", "PermissionsStartOnly=", "ReadWritePaths=/"] {
        assert!(!lines.iter().any(|line| line.starts_with(forbidden)), "{forbidden}");
    }
    assert!(lines.contains("ExecReload=/bin/kill -HUP $MAINPID"));
    for (setting, file) in SECRETS {
        assert!(unit.contains(&format!("{setting}=%d/{file}")), "{setting}");
        assert!(lines.contains(format!("LoadCredential={file}:/etc/anode/{file}").as_str()), "{file}");
    }
}

/// systemd's own judgement, where it is installed. It exits with a status, and names lines that it does not know.
#[test]
fn systemd_understands_the_unit() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/anode.service");
    let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
    let Ok(output) = output else {
        println!("systemd-analyze is not installed: the unit is not verified by it");
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    // The program that is started need not be installed here.
    let complaints: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("anode.service") && !line.contains("is not executable"))
        .collect();
    assert_eq!(complaints, [""; 0]);
}

/// Every node of compose gets the files, and its settings name them where they are mounted.
#[test]
fn compose_gives_every_node_its_secrets() {
    let compose = read("docker-compose.yml");
    assert!(compose.contains("  secrets: [cluster.key, tls.crt, tls.key, auth.toml]\n"));
    for (setting, file) in SECRETS {
        assert!(compose.contains(&format!("\n  {setting}: /run/secrets/{file}\n")), "{setting}");
        let from = format!("\n  {file}: {{ file: \"${{ANODE_SECRETS:-./secrets}}/{file}\" }}");
        assert!(compose.contains(&from), "{file}");
    }
    let services = ["  anode:\n    <<: *anode\n", "  anode-embedded:\n    <<: *anode\n"];
    for service in services {
        let (_, service) = compose.split_once(service).expect("a service of aNode");
        let service = service.split("\n\n").next().unwrap_or_default();
        assert!(service.contains("<<: *anode-environment"), "{service}");
        assert!(!service.contains("secrets:") && !service.contains("security_opt:"), "overrides: {service}");
    }
    for hardened in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
        assert!(compose.contains(hardened), "{hardened}");
    }
    assert!(lines(&read(".gitignore")).contains("/secrets/"), "secrets are not committed");
}

/// Three nodes that each took half of the machine took one and a half machines.
#[test]
fn compose_bounds_memory_and_lets_images_be_pinned() {
    let compose = read("docker-compose.yml");
    for variable in ["ANODE_MEMORY:-2G", "CASSANDRA_MEMORY:-3G"] {
        assert!(compose.contains(&format!("limits: {{ memory: \"${{{variable}}}\" }}")), "{variable}");
    }
    // A heap of Cassandra that was raised in the file alone did not fit into the limit.
    let settings = read(".env");
    for variable in ["ANODE_MEMORY=2G", "CASSANDRA_HEAP=1G", "CASSANDRA_MEMORY=3G"] {
        assert!(lines(&settings).contains(variable), "{variable} stands in .env");
    }
    let operation = read("docs/operation.md");
    for image in ["ANODE_IMAGE", "CASSANDRA_IMAGE", "RUST_IMAGE"] {
        assert!(compose.contains(&format!("${{{image}:-")), "{image}");
        assert!(operation.contains(&format!("\n{image}=")), "{image} is explained");
    }
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    assert!(images.clone().count() == 2 && images.into_iter().all(|image| image.starts_with("${")));
    let dockerfile = read("Dockerfile");
    let default = compose.split_once("${RUST_IMAGE:-").and_then(|(_, rest)| rest.split_once('}'));
    let default = default.expect("a default").0;
    assert!(dockerfile.contains(&format!("\nARG RUST_IMAGE={default}\nFROM ${{RUST_IMAGE}} AS build\n")));
}

/// A directory that the build came to need was not sent to docker, and no image could be built.
#[test]
fn docker_is_sent_all_that_the_image_is_built_from() {
    let ignored = read(".dockerignore");
    let (dockerfile, sent) = (read("Dockerfile"), lines(&ignored));
    let copied = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied = copied.filter(|line| !line.starts_with("--from=")).flat_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The last word is the target.
        words[..words.len() - 1].to_vec()
    });
    let copied: BTreeSet<String> = copied.map(|path| format!("!{path}")).collect();
    assert!(copied.len() > 5 && sent.contains("*"), "{copied:?}");
    for path in &copied {
        assert!(sent.contains(path.as_str()), "{path} is missing in .dockerignore");
    }
}

#[test]
fn kubernetes_gives_every_node_its_secrets() {
    let set = read("deploy/kubernetes/statefulset.yaml");
    let set: Vec<&str> = set.lines().map(str::trim).collect();
    for (setting, file) in SECRETS {
        let at = set.iter().position(|line| *line == format!("- name: {setting}"));
        assert_eq!(set[at.expect(setting) + 1], format!("value: /etc/anode/{file}"));
    }
    for line in [
        "- { name: secrets, mountPath: /etc/anode, readOnly: true }",
        "secret: { secretName: anode, defaultMode: 0440 }",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "runAsNonRoot: true",
    ] {
        assert!(set.contains(&line), "{line}");
    }
    // The port for clients speaks TLS alone, which probes could not check without the authority.
    let probes: Vec<_> = set.iter().filter(|line| line.starts_with("httpGet:")).collect();
    assert!(probes.len() == 3 && probes.iter().all(|line| line.contains("port: metrics")), "{probes:?}");
}

/// Nodes of the chart are closed unless a value opens them.
#[test]
fn the_chart_gives_every_node_its_secrets() {
    let values = read("deploy/helm/anode/values.yaml");
    let (_, secret) = values.split_once("\nsecret:\n").expect("the values of the secret");
    let secret = lines(secret.split("\n\n").next().unwrap_or_default());
    let set = read("deploy/helm/anode/templates/statefulset.yaml");
    for (value, settings) in [("clusterKey", &SECRETS[..1]), ("tls", &SECRETS[1..3]), ("auth", &SECRETS[3..])]
    {
        assert!(secret.contains(format!("{value}: true").as_str()), "{value}: {secret:?}");
        let condition = format!("{{{{- if .Values.secret.{value} }}}}\n");
        let (_, given) = set.split_once(&condition).expect(value);
        let given = given.split("{{- end }}").next().unwrap_or_default();
        for (setting, file) in settings {
            let lines = format!("- name: {setting}\n              value: /etc/anode/{file}\n");
            assert!(given.contains(&lines), "{setting} in {given}");
        }
    }
    let set = lines(&set);
    for line in [
        "- { name: secrets, mountPath: /etc/anode, readOnly: true }",
        "secret: { secretName: {{ .Values.secret.name }}, defaultMode: 0440 }",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "runAsNonRoot: true",
        "seccompProfile: { type: RuntimeDefault }",
        "automountServiceAccountToken: false",
    ] {
        assert!(set.contains(line), "{line}");
    }
}

/// Where the file of rights is taken away, a node answers to the names by which clients of the deployment address it.
#[test]
fn every_deployment_gives_the_names_of_its_services() {
    let compose = read("docker-compose.yml");
    assert!(compose.contains("\n  ANODE_ALLOW_HOST: anode,anode-embedded\n"), "{compose}");
    let set = read("deploy/kubernetes/statefulset.yaml");
    let set: Vec<&str> = set.lines().map(str::trim).collect();
    let at = set.iter().position(|line| *line == "- name: ANODE_ALLOW_HOST").expect("the setting");
    assert_eq!(set[at + 1], "value: >-");
    let names: BTreeSet<&str> = set[at + 2].split(',').collect();
    let services = read("deploy/kubernetes/services.yaml");
    let services: Vec<&str> = services.lines().filter_map(|line| line.strip_prefix("  name: ")).collect();
    assert_eq!(services, ["anode", "anode-clients"]);
    let domains = ["", ".$(POD_NAMESPACE)", ".$(POD_NAMESPACE).svc", ".$(POD_NAMESPACE).svc.cluster.local"];
    for service in services {
        for domain in domains {
            assert!(names.contains(format!("{service}{domain}").as_str()), "{service}{domain} in {names:?}");
        }
    }
    let chart = read("deploy/helm/anode/templates/statefulset.yaml");
    let given = "- name: ANODE_ALLOW_HOST\n              value: {{ include \"anode.hosts\" . | quote }}\n";
    assert!(chart.contains(given), "{chart}");
    let made = read("deploy/helm/anode/templates/_helpers.tpl");
    let listed = domains.map(|domain| format!("\"{domain}\"")).join(" ");
    for part in ["list $name (printf \"%s-clients\" $name)", &format!("list {listed}")] {
        assert!(made.contains(part), "{part} in {made}");
    }
}

/// The threat model tells of everybody what holds and what does not, and where a hole is reported; the guide tells how to
/// close a node.
#[test]
fn the_pages_about_security_have_all_their_parts() {
    let model = read("SECURITY.md");
    let part = |heading: &str| {
        let (_, part) = model.split_once(&format!("\n### {heading}\n")).expect(heading);
        part.split("\n### ").next().unwrap_or_default().to_owned()
    };
    for heading in ["A stranger", "A client", "A client with a token", "A member"] {
        assert!(part(heading).contains("\n**What does not hold:** "), "{heading}");
    }
    assert!(part("The operator").len() > 200);
    assert!(model.contains("\n## Reporting a vulnerability\n\nReport it privately"));
    let guide = read("docs/security.md");
    for heading in [
        "TLS",
        "Tokens and rights",
        "JWT",
        "Browsers: origins and hosts",
        "Keys of the cluster and their rotation",
        "Proxies",
        "Checklist for the open internet",
    ] {
        assert!(guide.contains(&format!("\n## {heading}\n")), "{heading}");
    }
}

/// Containers and pods have addresses that no certificate has. Each kind of deployment tells clients names that the
/// certificate has; the chart did not.
#[test]
fn every_deployment_tells_clients_names_of_its_certificate() {
    let secrets = read("deploy/secrets");
    for (path, setting, names) in [
        ("docker-compose.yml", "ANODE_ADVERTISE_HTTP: anode:7070", "DNS:anode,"),
        ("docker-compose.yml", "ANODE_ADVERTISE_HTTP: anode-embedded:7070", "DNS:anode-embedded,"),
        ("deploy/kubernetes/statefulset.yaml", "value: $(ANODE_NODE_NAME).anode:7070", "DNS:*.anode"),
    ] {
        assert!(read(path).contains(&format!(" {setting}\n")), "{path}: {setting}");
        assert!(secrets.contains(names), "{names}");
    }
    let chart = read("deploy/helm/anode/templates/statefulset.yaml");
    let domain = ".$(POD_NAMESPACE).svc.cluster.local:7070\" (include \"anode.name\" .)";
    assert!(chart.contains(&format!("printf \"$(ANODE_NODE_NAME).%s{domain}")), "{chart}");
    let notes = read("deploy/helm/anode/templates/NOTES.txt");
    assert!(notes.contains("'*.{{ $name }}.{{ .Release.Namespace }}.svc.cluster.local'\n"), "{notes}");
}

fn make_secrets(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/secrets");
    Command::new(script).arg(folder).args(arguments).output().expect("runs")
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("version").output().is_ok()
}

#[test]
fn secrets_are_made_once_and_read_by_nobody_else() {
    if !is_installed("openssl") {
        println!("openssl is not installed: deploy/secrets is not tried");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let folder: PathBuf = folder.path().join("secrets");
    let output = make_secrets(&folder, &["node1.example", "10.9.8.7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = |name: &str| fs::metadata(folder.join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["ca.key", "admin.token", "clients.token", "observe.token"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let owner = fs::metadata(folder.join("tls.key")).expect("tls.key").uid();
    for (_, name) in SECRETS {
        // Who is not root cannot give files to the user of the containers.
        assert_eq!(mode(name), if owner == 10001 { 0o600 } else { 0o644 }, "{name}");
    }
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let key = text("cluster.key");
    assert!(key.trim_end().len() == 64 && key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    for token in ["admin", "clients", "observe"] {
        let hash = openssl(&folder, &["dgst", "-sha256", "-r", &format!("{token}.token")]);
        let hash = hash.split_whitespace().next().expect("a hash").to_owned();
        assert!(text("auth.toml").contains(&format!("sha256 = \"{hash}\"")), "{token}");
        assert_eq!(text(&format!("{token}.token")).len(), 43, "256 bits in base64url, without a line end");
    }
    let names = openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName"]);
    for name in
        ["DNS:localhost", "DNS:anode", "DNS:anode-clients", "DNS:node1.example", "IP Address:10.9.8.7"]
    {
        assert!(names.contains(name), "{name} in {names}");
    }
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.crt", "tls.crt"];
    openssl(&folder, &verify);
    let also = make_secrets(&folder, &["node2.example"]);
    assert!(String::from_utf8_lossy(&also.stderr).contains("--renew makes one with node2.example"));

    let before = [text("tls.crt"), text("cluster.key"), text("auth.toml"), text("ca.crt")];
    assert!(make_secrets(&folder, &[]).status.success());
    assert_eq!([text("tls.crt"), text("cluster.key"), text("auth.toml"), text("ca.crt")], before);
    let inode = fs::metadata(folder.join("tls.crt")).expect("tls.crt").ino();
    assert!(make_secrets(&folder, &["--renew"]).status.success());
    assert_ne!(text("tls.crt"), before[0], "a new certificate");
    assert_eq!([text("cluster.key"), text("auth.toml"), text("ca.crt")], before[1..]);
    assert_eq!(fs::metadata(folder.join("tls.crt")).expect("tls.crt").ino(), inode, "seen through a mount");
    // A certificate that was renewed without the names that were given a year ago shut their clients out.
    assert_eq!(openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName"]), names);
    assert!(make_secrets(&folder, &["--renew", "node2.example"]).status.success());
    let renewed = openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName"]);
    assert_eq!(renewed.trim_end(), format!("{}, DNS:node2.example", names.trim_end()));
    openssl(&folder, &verify);
    assert!(!make_secrets(&folder, &["--unknown"]).status.success());
}
