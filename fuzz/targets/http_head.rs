#![no_main]
anode_fuzz::target!("http_head");
