//! Text as a name: never a panic, one form, and nothing that climbs.

#![no_main]

use fsvc::filter::TopicFilter;
use fsvc::path::{Prefix, RemotePath, Topic};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = text.parse::<RemotePath>() {
        assert_eq!(path.as_str(), text);
        assert!(path.segments().all(|segment| !matches!(segment, "" | "." | "..")));
        assert_eq!(path.parent().join(path.file_name()), Ok(path));
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.as_str().parse(), Ok(prefix));
    }
    if let Ok(topic) = text.parse::<Topic>() {
        assert_eq!(topic.as_str(), text);
    }
    if let Ok(filter) = text.parse::<TopicFilter>() {
        assert_eq!(filter.as_str(), text);
        assert!(filter.literal().is_none_or(|topic| filter.matches(&topic)));
    }
});
