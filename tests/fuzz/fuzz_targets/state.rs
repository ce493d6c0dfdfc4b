//! Gives libFuzzer's bytes to [`tokencached_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::state::run(data));
