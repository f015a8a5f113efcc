//! Preheat jobs: having an image where it will be wanted, before it is.

pub mod request;
