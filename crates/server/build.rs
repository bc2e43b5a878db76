//! Puts the web page into the binary: lists what the build of `web/` left in `web/dist`. Runs no Node itself, so that the server builds
//! without it, and then says on its page that there is none.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../web/dist");
    let mut files = Vec::new();
    list(&folder, &folder, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in &files {
        println!("cargo:rerun-if-changed={}", path.display());
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string()).expect("text takes all");
    }
    table.push(']');
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("web_files.rs");
    fs::write(out, table).expect("the build folder can be written");
    println!("cargo:rerun-if-changed={}", folder.display());
    if files.is_empty() {
        // A file that never exists makes cargo ask again at every build until the page is there, whatever its time stamps.
        println!("cargo:rerun-if-changed={}", folder.join("not-built-yet").display());
    }
}

fn list(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(root, &path, files);
        } else if let Ok(name) = path.strip_prefix(root)
            && !name.starts_with(".done")
        {
            files.push((name.to_string_lossy().replace('\\', "/"), fs::canonicalize(&path).expect("it is there")));
        }
    }
}
