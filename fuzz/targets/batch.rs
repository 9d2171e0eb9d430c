#![no_main]
anode_fuzz::target!("batch");
