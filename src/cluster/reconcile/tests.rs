//! Several nodes with real maps in one thread: bytes are cut anywhere, events come in any order,
//! and everything follows from a seed.

mod hostile;
mod pairs;
mod stories;
mod world;
