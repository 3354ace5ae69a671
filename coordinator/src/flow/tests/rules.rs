//! The rules one by one: what a user would lose if they did not hold.

use super::support::{Table, on_close, on_file, on_n_files, path};
use crate::flow::{FailurePolicy, FileKind, Missing, Reading, Resolution, WaitFor, Warning};

#[test]
fn a_probe_for_an_optional_file_does_not_hang() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    assert_eq!(story.missing('B', "/never-said"), Missing::NotFound);
    assert_eq!(story.missing('A', "/a"), Missing::NotFound);
    assert_eq!(story.missing('B', "/a"), Missing::Wait);
}

#[test]
fn a_file_that_was_never_made_is_missing_once_its_producer_has_ended() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    let wait = story.blocks('B', path("/a"));
    story.end('A');
    assert_eq!(story.released(wait), Some(Resolution::NotFound));
}

#[test]
fn a_file_that_a_failed_producer_never_made_is_an_error() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    let culprit = story.id('A');
    let wait = story.blocks('B', path("/a"));
    story.fail('A');
    assert_eq!(
        story.released(wait),
        Some(Resolution::ProducerFailed(culprit))
    );
    assert_eq!(
        story.answer('B', path("/a")),
        Resolution::ProducerFailed(culprit)
    );
}

#[test]
fn without_a_rule_a_file_is_final_when_its_producer_has_ended() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    let file = story.make_whole('A', "/a");
    assert_eq!(story.reading('B', file, "/a"), Reading::UntilFinal);
    assert_eq!(story.reading('A', file, "/a"), Reading::Free);
    let wait = story.blocks('B', WaitFor::Final(file));
    story.end('A');
    assert_eq!(story.released(wait), Some(Resolution::Ready));
    assert!(story.is_final(file));
}

#[test]
fn the_last_of_the_counted_closes_commits() {
    let mut story = Table::of("AB").rule("/a", "A>B", on_close(2)).play();
    let file = story.make_whole('A', "/a");
    assert!(!story.is_final(file));
    story.write('A', file);
    assert!(story.is_final(file));
    story.open('A', file);
    let warned = story.warnings();
    assert!(matches!(
        warned.as_slice(),
        [Warning::WrittenAfterFinal { .. }]
    ));
    assert!(story.is_final(file), "final files stay final");
}

#[test]
fn a_file_waits_for_those_it_depends_on() {
    let table = Table::of("AB").rule("/a", "A>B", on_file(&["/b"]));
    let mut story = table.rule("/b", "A>", on_close(1)).play();
    let file = story.make_whole('A', "/a");
    assert!(!story.is_final(file));
    story.make_whole('A', "/b");
    assert!(story.is_final(file));
}

#[test]
fn a_directory_is_complete_with_its_number_of_files() {
    let table = Table::of("AB")
        .rule("/d", "A>B", on_n_files(2))
        .dirname("/d");
    let mut story = table.rule("/d/x", "A>B", on_close(1)).play();
    let dir = story.mkdir('A', "/d");
    let wait = story.blocks('B', WaitFor::Listing(dir));
    story.make_whole('A', "/d/x");
    assert_eq!(story.released(wait), None);
    story.make_whole('A', "/d/y");
    assert_eq!(story.released(wait), Some(Resolution::Ready));
    assert_eq!(story.listing('B', dir, "/d"), Reading::Free);
}

#[test]
fn a_stream_is_read_while_it_is_written() {
    let table = Table::of("AB").rule("/a", "A>B", on_close(1));
    let mut story = table.streaming("/a").play();
    let file = story.create('A', "/a");
    story.open('A', file);
    assert_eq!(story.reading('B', file, "/a"), Reading::Stream);
    story.close('A', file);
    assert!(story.is_final(file));
}

#[test]
fn a_file_written_aside_and_renamed_is_ready_at_once() {
    let mut story = Table::of("AB").rule("/a", "A>B", on_close(1)).play();
    let wait = story.blocks('B', path("/a"));
    let file = story.make_whole('A', "/a.tmp");
    assert!(!story.is_final(file));
    story.rename("/a.tmp", "/a");
    assert_eq!(story.released(wait), Some(Resolution::Ready));
    assert!(story.is_final(file));
}

#[test]
fn a_file_made_anew_is_counted_anew() {
    let mut story = Table::of("AB").rule("/a", "A>B", on_close(1)).play();
    let old = story.make_whole('A', "/a");
    story.unlink("/a");
    let new = story.create('A', "/a");
    story.open('A', new);
    assert!(story.is_final(old) && !story.is_final(new));
}

#[test]
fn half_a_file_of_a_failed_step_is_never_a_whole_one() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    let culprit = story.id('A');
    let file = story.make_whole('A', "/a");
    let wait = story.blocks('B', WaitFor::Final(file));
    story.fail('A');
    assert_eq!(
        story.released(wait),
        Some(Resolution::ProducerFailed(culprit))
    );
    assert_eq!(story.reading('B', file, "/a"), Reading::Failed(culprit));
}

#[test]
fn what_lies_on_disk_is_ready() {
    let mut story = Table::of("AB").path("/a", "A>B").play();
    let file = story.preexisting("/a", FileKind::File);
    assert!(story.is_final(file));
    assert_eq!(story.reading('B', file, "/a"), Reading::Free);
}

#[test]
fn a_directory_into_which_somebody_will_write_is_waited_for() {
    let table = Table::of("AB").path("/d/x", "A>B").tells_below();
    let mut story = table.play();
    assert_eq!(story.missing('B', "/d"), Missing::Wait);
    assert_eq!(story.missing('A', "/d"), Missing::NotFound);
    let wait = story.blocks('B', path("/d"));
    story.mkdir('A', "/d");
    assert_eq!(story.released(wait), Some(Resolution::Ready));
}

#[test]
fn an_excluded_path_has_no_rules() {
    let table = Table::of("AB").path("/a", "A>B").excluded("/a");
    assert_eq!(table.play().missing('B', "/a"), Missing::NotFound);
}

#[test]
fn a_tolerant_run_takes_a_failed_producer_for_one_that_made_nothing() {
    let table = Table::of("AB").path("/a", "A>B");
    let mut story = table.play_with(FailurePolicy::NotFound);
    let wait = story.blocks('B', path("/a"));
    story.fail('A');
    assert_eq!(story.released(wait), Some(Resolution::NotFound));
}
