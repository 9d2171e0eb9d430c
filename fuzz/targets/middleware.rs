#![no_main]
anode_fuzz::target!("middleware");
