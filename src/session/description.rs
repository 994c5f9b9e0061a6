//! Requests in a few words, for the log.
//!
//! The names are checked names: nothing in them acts on a terminal.

use crate::filter::TopicFilter;
use crate::protocol::Op;

/// Topics that a log line names.
const SHOWN_FILTERS_MAX: usize = 4;

/// What a request is about.
pub(super) fn of(op: &Op) -> String {
    match op {
        Op::Put(put) => put.path.to_string(),
        Op::Get(get) => get.path.to_string(),
        Op::Stat(stat) => stat.path.to_string(),
        Op::List(list) => list.path.to_string(),
        Op::Remove(remove) => remove.path.to_string(),
        Op::Move(rename) => format!("{} -> {}", rename.from, rename.to),
        Op::Copy(copy) => format!("{} -> {}", copy.from, copy.to),
        Op::Can(question) => {
            crate::escape::Escaped::new(&format!("{} {}", question.action, question.on)).to_string()
        }
        Op::Publish(publish) => publish.topic.to_string(),
        Op::Call(call) => call.topic.to_string(),
        Op::Answer(answer) => answer.to.to_string(),
        Op::Subscribe(subscribe) => join(&subscribe.topics),
        Op::Last(last) => join(&last.topics),
        Op::Watch(watch) => watch.path.to_string(),
        Op::Ack(ack) => format!("{} {}", ack.cursor, ack.sequence),
        Op::Forget(forget) => forget.cursor.to_string(),
        Op::Fetch(fetch) => fetch.sequence.to_string(),
        Op::Topics(topics) => topics
            .filter
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        Op::Reconcile(reconcile) => reconcile.path.to_string(),
        Op::LogVerify(verify) => verify.from.to_string(),
        Op::Append(append) => append.path.to_string(),
        Op::Begin(begin) => begin.path.to_string(),
        Op::Write(write) => format!("{} at {}", write.upload, write.offset),
        Op::Status(status) => status.upload.to_string(),
        Op::Abort(abort) => match &abort.upload {
            Some(upload) => upload.to_string(),
            None => format!("{} staged contents", abort.staged.len()),
        },
        Op::Signature(signature) => signature.path.to_string(),
        Op::GetMany(many) => format!("{} files", many.paths.len()),
        Op::Stage(_)
        | Op::Commit(_)
        | Op::Uploads(_)
        | Op::PutMany(_)
        | Op::LogStats
        | Op::Whoami
        | Op::Ping => String::new(),
    }
}

fn join(filters: &[TopicFilter]) -> String {
    let filters = filters
        .iter()
        .take(SHOWN_FILTERS_MAX)
        .map(TopicFilter::as_str);
    filters.collect::<Vec<_>>().join(" ")
}
