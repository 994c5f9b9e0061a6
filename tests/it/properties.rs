//! What must hold for any bytes: never a panic, and what is read is written back the same.
//!
//! The same properties as the targets under fuzz/, which search deeper.

use fsvc::content::ContentId;
use fsvc::digest::Digest;
use fsvc::path::{Prefix, RemotePath, Topic};
use fsvc::policy::Policy;
use fsvc::protocol::{
    Copy, ErrorCode, FileInfo, Frame, Get, Greeting, Kind, List, Listing, Move, Op, Put, Question,
    Remove, Request, Response, Stat, Trailer,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const CASES: u32 = 1_000;

/// Text that is near to JSON, TOML and names, so that not all of it fails at the first byte.
fn near_text() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[[grant]]\n".to_owned()),
        Just("to = \"spiffe://a/b\"\n".to_owned()),
        Just("allow = [\"read\"]\n".to_owned()),
        Just("on = \"/**\"\n".to_owned()),
        Just("\"id\":1,\"op\":".to_owned()),
        Just("\"put\",\"path\":\"/a\"".to_owned()),
        Just("\"abort\":".to_owned()),
        Just("\"hello\":".to_owned()),
        Just("/..".to_owned()),
        Just("/.fsvc".to_owned()),
        "[\\[\\]{}\",:=/.*0-9a-z \n]{0,6}",
        any::<char>().prop_map(String::from),
    ];
    vec(token, 0..16).prop_map(|tokens| tokens.concat())
}

fn name() -> impl Strategy<Value = RemotePath> {
    let path = vec("[a-z0-9_ü日*%-]{1,12}", 1..6).prop_map(|s| format!("/{}", s.join("/")));
    path.prop_filter_map("a name", |text| text.parse().ok())
}

fn number() -> impl Strategy<Value = u64> {
    0..=fsvc::json::INTEGER_MAX
}

fn op() -> impl Strategy<Value = Op> {
    let conditions = || (any::<bool>(), option::of(number()));
    prop_oneof![
        (name(), option::of(number()), conditions()).prop_map(
            |(path, size, (if_absent, if_version))| Op::Put(Put {
                path,
                size,
                if_absent,
                if_version,
                attributes: None,
                request_id: None,
                encoding: None,
            })
        ),
        name().prop_map(|path| Op::Get(Get::whole(path))),
        name().prop_map(|path| Op::Stat(Stat { path })),
        (name(), option::of(any::<String>())).prop_map(|(path, after)| Op::List(List {
            path: path.as_prefix(),
            after
        })),
        (name(), option::of(number())).prop_map(|(path, if_version)| Op::Remove(Remove {
            path,
            if_version,
            request_id: None,
        })),
        (name(), name(), conditions()).prop_map(|(from, to, (if_absent, if_version))| {
            Op::Move(Move {
                from,
                to,
                if_absent,
                if_version,
                request_id: None,
            })
        }),
        (name(), name(), conditions()).prop_map(|(from, to, (if_absent, if_version))| {
            Op::Copy(Copy {
                from,
                to,
                if_absent,
                if_version,
                request_id: None,
            })
        }),
        any::<(String, String)>().prop_map(|(action, on)| Op::Can(Question { action, on })),
        Just(Op::Whoami),
        Just(Op::Ping),
    ]
}

fn trailer() -> impl Strategy<Value = Trailer> {
    prop_oneof![
        (number(), any::<Vec<u8>>()).prop_map(|(size, content)| Trailer::Whole {
            size,
            digest: Digest::of(&content)
        }),
        proptest::sample::select(&ErrorCode::ALL[..]).prop_map(|abort| Trailer::Abort { abort }),
    ]
}

fn read_everything(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, after))) = Frame::decode(rest) {
        let mut again = Vec::new();
        frame.encode(&mut again).unwrap();
        assert_eq!(again, rest[..rest.len() - after.len()]);
        rest = after;
    }
    match Request::decode(bytes) {
        Ok(request) => assert_eq!(Request::decode(&request.encode()), Ok(request)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
    }
    let _ = Greeting::decode(bytes);
    let _ = Trailer::decode(bytes);
    let _ = Response::<FileInfo>::decode(bytes);
    let _ = Response::<Listing>::decode(bytes);
}

fn read_text(text: &str) {
    if let Ok(path) = text.parse::<RemotePath>() {
        assert_eq!(path.as_str(), text);
        assert!(path.segments().all(|s| !matches!(s, "" | "." | "..")));
        assert_eq!(path.parent().join(path.file_name()), Ok(path));
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.as_str().parse(), Ok(prefix));
    }
    if let Ok(topic) = text.parse::<Topic>() {
        assert_eq!(topic.as_str(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(id) = text.parse::<ContentId>() {
        assert_eq!(id.to_string(), text);
    }
    match Policy::parse(text) {
        Ok(policy) => assert!(policy.n_grants() > 0),
        Err(error) => assert!(!error.to_string().contains('\u{1b}'), "{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..512)) {
        read_everything(&bytes);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in near_text()) {
        read_everything(text.as_bytes());
        read_text(&text);
    }

    #[test]
    fn p2_1_frames_come_back_as_they_were(
        kind in proptest::sample::select(vec![Kind::Message, Kind::Data, Kind::End]),
        content in vec(any::<u8>(), 1..4096),
        behind in vec(any::<u8>(), 0..16),
    ) {
        let frame = Frame { kind, content: &content };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        prop_assert_eq!(Frame::decode(&bytes[..bytes.len() - 1]), Ok(None));
        bytes.extend(&behind);
        prop_assert_eq!(Frame::decode(&bytes), Ok(Some((frame, &behind[..]))));
    }

    #[test]
    fn p4_requests_come_back_as_they_were(id in number(), op in op()) {
        let request = Request { id, op };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn p4_4_an_unknown_field_is_refused_in_every_op(op in op(), field in "x_[a-z]{1,8}") {
        let bytes = Request { id: 1, op }.encode();
        let mut object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        object[&field] = true.into();
        let error = Request::decode(&serde_json::to_vec(&object).unwrap()).unwrap_err();
        prop_assert_eq!((error.id(), error.code()), (Some(1), ErrorCode::BadRequest));
        prop_assert!(error.to_string().contains(&field), "{}", error);
    }

    #[test]
    fn p6_2_trailers_come_back_as_they_were(trailer in trailer()) {
        prop_assert_eq!(Trailer::decode(&serde_json::to_vec(&trailer).unwrap()), Ok(trailer));
    }
}
