//! Tests of the checker: each promise is broken once, and the checker says so by its name.
