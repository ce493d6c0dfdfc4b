//! Gives libFuzzer's bytes to [`tokencached_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::config::run(data));
