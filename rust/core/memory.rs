//! What a model will need, what the machine has free, and the comparison of the two before anything is allocated.
