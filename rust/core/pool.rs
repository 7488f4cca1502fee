//! The thread pool: dynamic split in small pieces, a short spin, then park.
