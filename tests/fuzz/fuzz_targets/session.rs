//! Gives libFuzzer's bytes to [`tokencached_fuzz::session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::session::run(data));
