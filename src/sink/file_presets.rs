//! The files that well-known scripts keep their tokens in, by the file's or the script's name. Data only.

use super::template::Escape;

/// What a well-known script reads, by the file's usual name or the script's.
pub struct FilePreset {
    pub name: &'static str,
    pub layout: Layout,
}

pub enum Layout {
    Text(&'static str, Escape),
    /// `serialize()` of an array with the file's own name, the value and its end.
    NamedArray,
}

/// Each after what such scripts do: they take the file as it is until the time in it has come.
pub const FILE_PRESETS: &[FilePreset] = &[
    // WeChat's own JS-SDK sample for PHP, as of 2015: access_token.php and jsapi_ticket.php, read from byte 15 on.
    json("jssdk", "<?php exit();?>{\"expire_time\":{expires_at},\"{type}\":\"{value}\"}"),
    // The older one: access_token.json and jsapi_ticket.json.
    json("jssdk-json", "{\"expire_time\":{expires_at},\"{type}\":\"{value}\"}"),
    FilePreset {
        name: "access_token.php",
        layout: Layout::Text(
            "<?php return array('{type}' => '{value}', 'expire_time' => {expires_at});\n",
            Escape::Php,
        ),
    },
    // Despite its name the time of the fetch: the script adds 3600.
    json("access_token.json", "{\"{type}\": \"{value}\", \"expires_time\": {expires_at-3600}}"),
    json("access_token.txt", "{\"expire_time\":{expires_at},\"{type}\":\"{value}\"}"),
    // The cache of WeChatDeveloper and ThinkAdmin without another driver.
    FilePreset { name: "zoujingli", layout: Layout::NamedArray },
];

const fn json(name: &'static str, text: &'static str) -> FilePreset {
    FilePreset { name, layout: Layout::Text(text, Escape::Json) }
}
