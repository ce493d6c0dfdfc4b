#![allow(dead_code)]
mod output;
mod process;
