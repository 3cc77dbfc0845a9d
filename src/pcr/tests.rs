//! The operations as they are called, against a simulated cloud.
