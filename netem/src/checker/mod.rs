//! Decides from what clients saw whether a cluster kept its promises.
