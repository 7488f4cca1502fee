//! The name that programs linked with the library look for at run time. Without it they would look for the path that they were
//! linked with. It has no version in it, because apps carry the library along and Android packs no other names.
#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let vendor = std::env::var("CARGO_CFG_TARGET_VENDOR").unwrap_or_default();
    let family = std::env::var("CARGO_CFG_TARGET_FAMILY").unwrap_or_default();
    if vendor == "apple" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libfastq.dylib");
    } else if family == "unix" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfastq.so");
    }
}
