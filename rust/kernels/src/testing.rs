//! What the tests of this crate and of its users share: seeded random blocks, guard pages, case tables.
