//! Gives libFuzzer's bytes to [`tokencached_fuzz::answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokencached_fuzz::answer::run(data));
