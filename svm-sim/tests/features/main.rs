//! What SVM may have besides, in guests: broadcast invalidations, supervisor shadow stacks, bus locks, SMIs, counters.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../vmrun/base.rs"]
mod base;
mod broadcast;
mod bus_lock;
mod counters;
mod guest;
mod shadow_stacks;
mod smm;
mod virtualized;
