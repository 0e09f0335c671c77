//! Tests of plans and executors.
