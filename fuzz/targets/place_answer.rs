#![no_main]
anode_fuzz::target!("place_answer");
