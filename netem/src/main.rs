//! The program behind `netem/run`.

fn main() {}
