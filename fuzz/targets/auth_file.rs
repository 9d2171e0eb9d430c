#![no_main]
anode_fuzz::target!("auth_file");
