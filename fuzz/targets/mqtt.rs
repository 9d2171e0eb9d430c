#![no_main]
anode_fuzz::target!("mqtt");
