//! Rules that single numbers show: what a derivative reads, zero against infinity, and the subgradients at kinks.
