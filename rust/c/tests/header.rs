//! The header is made from the crate: `FASTQ_UPDATE=1` writes it anew.

#[test]
fn the_header_is_up_to_date() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new().with_crate(folder).with_config(config).generate().expect("bindings");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).expect("a header is text");
    let file = folder.join("include/fastq.h");
    if std::env::var_os("FASTQ_UPDATE").is_some() {
        std::fs::write(&file, &made).expect("the header can be written");
    }
    let recorded = std::fs::read_to_string(&file).expect("the header can be read");
    assert!(recorded == made, "the interface differs from {}; run again with FASTQ_UPDATE=1:\n{made}", file.display());
}
