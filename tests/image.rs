//! Checks the Dockerfile. The image first builds the dependencies with empty programs, so that they are a
//! layer of their own. All targets that the manifests name must be among these empty programs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The library of `bench` was missing among the empty programs. cargo refused the workspace, and `docker
/// compose up` failed for everyone, while all tests passed, because none of them has a container engine.
#[test]
fn the_images_empty_programs_are_all_that_the_manifests_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = tempfile::tempdir().expect("folder");
    let manifests = [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        "loadgen/Cargo.toml",
        "bench/Cargo.toml",
        "clients/rust/Cargo.toml",
        "netem/Cargo.toml",
    ];
    for manifest in manifests {
        let to = image.path().join(manifest);
        fs::create_dir_all(to.parent().expect("folder")).expect("made");
        fs::copy(root.join(manifest), to).expect("copied");
    }
    let script = empty_programs(&fs::read_to_string(root.join("Dockerfile")).expect("read"));
    run(Command::new("sh").args(["-c", &script]).current_dir(&image));
    let targets = run(Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"])
        .current_dir(&image));
    assert!(targets.contains("\"name\":\"anode\""), "{targets}");
}

/// Scanners find the names and versions of all dependencies in the program only if the build puts them there.
#[test]
fn the_program_in_the_image_names_its_crates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).expect("read");
    let commands = dockerfile.lines().filter(|line| !line.starts_with('#'));
    let builds: Vec<&str> =
        commands.filter(|line| line.contains("cargo") && line.contains(" build --")).collect();
    assert_eq!(builds.len(), 2, "of the dependencies, and of the program: {builds:?}");
    for build in builds {
        assert!(build.contains("cargo auditable build --release --locked"), "{build}");
    }
    let release = fs::read_to_string(root.join("scripts/release")).expect("read");
    assert!(release.contains("scripts/sbom \"$out/"), "a release has a bill of materials");
}

/// Returns the commands that make the empty programs, which come before the build.
fn empty_programs(dockerfile: &str) -> String {
    let (_, script) = dockerfile.split_once("RUN for ").expect("a step");
    let (script, _) = script.split_once("&& cargo auditable build").expect("that builds");
    format!("for {script}").replace("\\\n", "")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
