#![no_main]
anode_fuzz::target!("sealed_datagram");
