//! How the program is linked.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    let script = concat!("-T", env!("CARGO_MANIFEST_DIR"), "/link.ld");
    for argument in ["-nostdlib", "-static", script] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
