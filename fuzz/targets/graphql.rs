#![no_main]
anode_fuzz::target!("graphql");
