#![no_main]
anode_fuzz::target!("cluster_key");
