//! Gives libFuzzer's bytes to [`tokencached_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::parse::run(data));
