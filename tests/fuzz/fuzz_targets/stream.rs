//! Gives libFuzzer's bytes to [`tokencached_fuzz::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::stream::run(data));
