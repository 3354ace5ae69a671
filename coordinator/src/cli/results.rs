//! `capio diff`, `apply`, `discard`: what a session changes on disk, and what
//! one that was killed has left half done.

use std::fmt::Write as _;

use super::args::{Apply, Diff, Discard, Left};
use super::exit::{self, Done, Failure};
use super::generate::print;
use super::place::{self, Place};
use crate::report::format::bytes;
use crate::session::{Admin, DiffEntry, Difference, Engine, EntryKind, Order, Settled};

pub(super) fn diff(args: &Diff, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    let entries = place.connect()?.diff()?;
    if args.json {
        return print_json(&entries);
    }
    let lines: String = entries.iter().map(line).collect();
    print(lines.as_bytes())
}

fn line(entry: &DiffEntry) -> String {
    let letter = match entry.what {
        Difference::Added => 'A',
        Difference::Modified => 'M',
        Difference::Removed => 'D',
        Difference::Attributes => 'P',
        Difference::Renamed => 'R',
    };
    let slash = if entry.kind == EntryKind::Directory {
        "/"
    } else {
        ""
    };
    let mut line = format!("{letter} ");
    if let Some(from) = &entry.from {
        let _ = write!(line, "{from}{slash} -> ");
    }
    let _ = write!(line, "{}{slash}", entry.path);
    let size = (entry.kind == EntryKind::File).then(|| bytes(entry.bytes));
    let told = size.into_iter().chain([entry.reason.to_string()]);
    let _ = write!(line, " ({})", told.collect::<Vec<_>>().join(", "));
    if entry.conflict {
        line.push_str(": somebody else has changed it, it is left alone");
    }
    line.push('\n');
    line
}

pub(super) fn apply(args: &Apply, engine: &Engine) -> Done {
    settle(&args.left, Order::Apply, engine)
}

pub(super) fn discard(args: &Discard, engine: &Engine) -> Done {
    let force = args.force;
    settle(&args.left, Order::Discard { force }, engine)
}

fn settle(left: &Left, order: Order, engine: &Engine) -> Done {
    let dir = place::directory(left.dir.as_deref(), None)?;
    let settled = (engine.settle)(&dir, left.workflow.as_deref(), order);
    let settled = settled.map_err(Failure::session)?;
    if left.json {
        print_json(&settled)?;
    } else {
        print(told(&settled, &dir).as_bytes())?;
    }
    let well = |one: &Settled| one.errors.is_empty() && one.conflicts.is_empty();
    Ok(if settled.iter().all(well) {
        exit::OK
    } else {
        exit::FILES
    })
}

fn told(settled: &[Settled], dir: &std::path::Path) -> String {
    if settled.is_empty() {
        return format!(
            "no session has left anything to settle in {}\n",
            dir.display()
        );
    }
    let mut text = String::new();
    for one in settled {
        let _ = writeln!(text, "{one}");
        for conflict in &one.conflicts {
            let _ = writeln!(
                text,
                "conflict: {} was changed by somebody else and left alone; ours is {}",
                conflict.path, conflict.kept_as
            );
        }
        for error in &one.errors {
            let _ = writeln!(text, "error: {error}");
        }
    }
    text
}

fn print_json(value: &impl serde::Serialize) -> Done {
    let mut line = serde_json::to_string(value).map_err(Failure::session)?;
    line.push('\n');
    print(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{FileName, KeepReason};

    #[test]
    fn a_difference_tells_what_where_how_much_and_why() {
        let mut entry = DiffEntry {
            what: Difference::Renamed,
            kind: EntryKind::File,
            path: FileName(b"new".to_vec()),
            from: Some(FileName(b"old\n".to_vec())),
            bytes: 2048,
            reason: KeepReason::Changed,
            conflict: false,
        };
        assert_eq!(line(&entry), "R old\\n -> new (2.0 KiB, changed)\n");
        entry.kind = EntryKind::Directory;
        entry.from = None;
        entry.what = Difference::Added;
        entry.conflict = true;
        assert!(line(&entry).starts_with("A new/ (changed): somebody else"));
    }
}
