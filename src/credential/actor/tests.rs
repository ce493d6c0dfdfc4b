//! One credential in no time: events go in, effects are looked at.
