//! Compiles the protobuf schemas with `protox`, so that `protoc` does not have to be installed, and lists the files of the
//! page for browsers. They are kept as they were built (`web/dist/`), so that nothing but cargo is needed here.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

/// The page for browsers, as it was built. `ASSETS` are the files that it loads.
const PAGE: &str = "web/dist/index.html";
const ASSETS: &str = "web/dist/assets";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = ["proto/anode/v1/client.proto", "proto/anode/v1/gossip.proto"];
    for schema in schemas {
        println!("cargo:rerun-if-changed={schema}");
    }
    let descriptors = protox::compile(schemas, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=web/dist");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("web_files.rs"), web_files()?)?;
    Ok(())
}

/// Returns Rust code with the page and a table of its files, in the order of their names.
fn web_files() -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(ASSETS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.ends_with(".br") && !name.ends_with(".gz"));
    names.sort();
    let mut code = format!("const WEB_PAGE: WebFile = {};\n", web_file("", PAGE)?);
    code.push_str("const WEB_ASSETS: &[WebFile] = &[\n");
    for name in &names {
        // Writing to a `String` cannot fail.
        let _ = writeln!(code, "    {},", web_file(name, &format!("{ASSETS}/{name}"))?);
    }
    code.push_str("];\n");
    Ok(code)
}

/// Returns the expression of one file and of those of its compressed forms that exist.
fn web_file(name: &str, path: &str) -> io::Result<String> {
    let bytes = |path: &str| -> io::Result<String> {
        Ok(format!("include_bytes!({:?})", fs::canonicalize(path)?.to_string_lossy()))
    };
    let compressed = |suffix: &str| -> io::Result<String> {
        let path = format!("{path}.{suffix}");
        Ok(if Path::new(&path).exists() { format!("Some({})", bytes(&path)?) } else { "None".into() })
    };
    let (plain, brotli, gzip) = (bytes(path)?, compressed("br")?, compressed("gz")?);
    Ok(format!("WebFile {{ name: {name:?}, plain: {plain}, brotli: {brotli}, gzip: {gzip} }}"))
}
