//! A file system that is slow, fails, is full, or lies about what it has written.
