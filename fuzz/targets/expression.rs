#![no_main]
anode_fuzz::target!("expression");
