#![no_main]
anode_fuzz::target!("pull_stream");
