//! `capio ls`, `stat`, `cat`, `ps`, `done`, `stop`: a running session seen
//! and told from outside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Cat, DoneArgs, Paths, Ps, Stop};
use super::exit::{self, Done, Failure};
use super::generate::print;
use super::place::Place;
use crate::report::format::{bytes, seconds};
use crate::run::workflow::nearest;
use crate::session::{Admin, AdminError, Engine, Entry, EntryKind, Snapshot, StepSnapshot};

/// How much `cat` asks for at a time.
const PIECE: u32 = 1 << 20;

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error.errno {
            Some(_) => Failure::usage(error),
            None => Failure::session(error),
        }
    }
}

pub(super) fn ls(args: &Paths, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    let client = place.connect()?;
    let mut text = String::new();
    for path in paths(args, &place)? {
        let mut entries = client.list(&path)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        match args.json {
            true => text.push_str(&json_line(&entries)?),
            false => entries.iter().for_each(|entry| text.push_str(&row(entry))),
        }
    }
    print(text.as_bytes())
}

pub(super) fn stat(args: &Paths, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    let client = place.connect()?;
    let mut text = String::new();
    for path in paths(args, &place)? {
        let entry = client.stat(&path)?;
        match args.json {
            true => text.push_str(&json_line(&entry)?),
            false => text.push_str(&details(&entry)),
        }
    }
    print(text.as_bytes())
}

pub(super) fn cat(args: &Cat, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    let client = place.connect()?;
    for path in &args.paths {
        copy_out(&client, &place.path(path)?)?;
    }
    Ok(exit::OK)
}

fn copy_out(client: &dyn Admin, path: &Path) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let piece = client.read(path, offset, PIECE)?;
        if piece.is_empty() {
            return Ok(());
        }
        print(&piece)?;
        offset += piece.len() as u64;
    }
}

pub(super) fn ps(args: &Ps, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    let snapshot = place.connect()?.ps()?;
    if args.json {
        return print(json_line(&snapshot)?.as_bytes());
    }
    let head = format!("session {} of {}\n", place.workflow, place.dir.display());
    print((head + &processes(&snapshot)).as_bytes())
}

pub(super) fn done(args: &DoneArgs, engine: &Engine) -> Done {
    let client = Place::find(&args.session, engine)?.connect()?;
    let snapshot = client.ps()?;
    if snapshot.step(&args.step).is_none() {
        return Err(unknown_step(&args.step, &snapshot));
    }
    client.done(&args.step)?;
    Ok(exit::OK)
}

fn unknown_step(step: &str, snapshot: &Snapshot) -> Failure {
    let known = snapshot.steps.iter().map(|step| step.name.as_str());
    let hint = match nearest(step, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`capio ps` lists them".to_owned(),
    };
    Failure::usage(format!("there is no step `{step}` in this session; {hint}"))
}

pub(super) fn stop(args: &Stop, engine: &Engine) -> Done {
    let place = Place::find(&args.session, engine)?;
    place.connect()?.stop()?;
    while !args.no_wait && place.connect().is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(exit::OK)
}

fn paths(args: &Paths, place: &Place) -> Result<Vec<PathBuf>, Failure> {
    if args.paths.is_empty() {
        return Ok(vec![place.dir.clone()]);
    }
    args.paths.iter().map(|path| place.path(path)).collect()
}

fn json_line(value: &impl serde::Serialize) -> Result<String, Failure> {
    let mut line = serde_json::to_string(value).map_err(Failure::session)?;
    line.push('\n');
    Ok(line)
}

/// As `ls -l` has it, with where the file stands instead of its owner.
fn row(entry: &Entry) -> String {
    let target = entry
        .target
        .as_ref()
        .map_or(String::new(), |target| format!(" -> {target}"));
    format!(
        "{}{} {:8} {:>12} {} {}{target}\n",
        letter(entry.kind),
        permissions(entry.mode),
        standing(entry),
        entry.size,
        time(entry.modified_ns),
        entry.name
    )
}

fn details(entry: &Entry) -> String {
    let target = entry
        .target
        .as_ref()
        .map_or(String::new(), |target| format!(" -> {target}"));
    format!(
        "{}{target}\n  kind      {}\n  size      {} ({})\n  mode      {:04o} ({})\n  \
         owner     {}:{}\n  inode     {}, {} names\n  modified  {}\n  state     {}\n",
        entry.name,
        kind(entry.kind),
        entry.size,
        bytes(entry.size),
        entry.mode & 0o7777,
        permissions(entry.mode),
        entry.uid,
        entry.gid,
        entry.inode,
        entry.links,
        time(entry.modified_ns),
        standing(entry),
    )
}

fn standing(entry: &Entry) -> &'static str {
    match (entry.on_disk, entry.is_final) {
        (true, _) => "on-disk",
        (_, true) => "final",
        _ => "growing",
    }
}

fn letter(kind: EntryKind) -> char {
    match kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Other => '?',
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symbolic link",
        EntryKind::Other => "other",
    }
}

fn permissions(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    letters
        .map(|(bit, letter)| {
            if mode & (0o400 >> bit) == 0 {
                '-'
            } else {
                letter
            }
        })
        .collect()
}

/// Universal time, as `2026-01-31T12:00:00Z`.
fn time(nanoseconds: i64) -> String {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01, counted in eras of 400 years that
/// begin in March, so that the leap day comes last.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn processes(snapshot: &Snapshot) -> String {
    let files = snapshot.files;
    let cache = snapshot.cache;
    let mut text = format!(
        "{} files ({} final), {} directories; cache {} of {} in use\n",
        files.files,
        files.final_files,
        files.directories,
        bytes(cache.used_bytes),
        bytes(cache.limit_bytes)
    );
    let width = snapshot
        .steps
        .iter()
        .map(|step| step.name.chars().count())
        .max()
        .unwrap_or(0);
    for step in &snapshot.steps {
        step_lines(&mut text, step, width);
    }
    for warning in snapshot.other_warnings() {
        let _ = writeln!(text, "warning: {warning}");
    }
    if let Some(deadlock) = &snapshot.deadlock {
        let _ = writeln!(text, "{deadlock}");
    }
    text
}

fn step_lines(text: &mut String, step: &StepSnapshot, width: usize) {
    let _ = writeln!(
        text,
        "{:width$}  {:11}  {} processes  {} in  {} out",
        step.name,
        step.state,
        step.processes.len(),
        bytes(step.bytes_read),
        bytes(step.bytes_written)
    );
    for pid in &step.processes {
        let _ = write!(text, "  {pid:>8} {}", command_name(*pid));
        for wait in step.waiting.iter().filter(|wait| wait.pid == *pid) {
            let time = seconds(wait.nanoseconds as f64 / 1e9);
            let _ = write!(text, "  waits {time} for {} ({})", wait.path, wait.reason);
        }
        text.push('\n');
    }
}

fn command_name(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{FileName, StepState, WaitNow};

    fn entry() -> Entry {
        Entry {
            name: FileName(b"out.sam".to_vec()),
            kind: EntryKind::File,
            size: 1536,
            mode: 0o100_640,
            uid: 1000,
            gid: 100,
            inode: 12,
            links: 1,
            modified_ns: 1_709_164_800_000_000_000,
            is_final: false,
            on_disk: false,
            target: None,
        }
    }

    #[test]
    fn a_listing_shows_what_ls_does_and_whether_the_file_still_grows() {
        assert_eq!(
            row(&entry()),
            "-rw-r----- growing          1536 2024-02-29T00:00:00Z out.sam\n"
        );
        let mut link = entry();
        link.kind = EntryKind::Symlink;
        link.target = Some(FileName(b"a".to_vec()));
        link.is_final = true;
        assert_eq!(
            row(&link),
            "lrw-r----- final            1536 2024-02-29T00:00:00Z out.sam -> a\n"
        );
        assert!(details(&entry()).contains("mode      0640 (rw-r-----)"));
    }

    #[test]
    fn times_are_right_on_leap_days_and_before_1970() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(time(4_107_542_399_000_000_000), "2100-02-28T23:59:59Z");
        assert_eq!(time(4_107_542_400_000_000_000), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn ps_tells_who_waits_for_what() {
        let step = StepSnapshot {
            name: "sort".into(),
            state: StepState::Running,
            processes: vec![-5],
            bytes_read: 2048,
            waiting: vec![WaitNow {
                pid: -5,
                path: "/w/out.sam".into(),
                reason: "more bytes".into(),
                nanoseconds: 2_500_000_000,
            }],
            ..StepSnapshot::default()
        };
        let snapshot = Snapshot {
            steps: vec![step],
            ..Snapshot::default()
        };
        assert_eq!(
            processes(&snapshot),
            "0 files (0 final), 0 directories; cache 0 B of 0 B in use\n\
             sort  running      1 processes  2.0 KiB in  0 B out\n        \
             -5   waits 2.500 s for /w/out.sam (more bytes)\n"
        );
    }
}
