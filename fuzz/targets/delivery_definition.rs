#![no_main]
anode_fuzz::target!("delivery_definition");
