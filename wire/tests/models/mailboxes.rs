//! A client asks while the coordinator goes to sleep: it is answered once, or goes by
//! the socket, and never sleeps on a question that nobody sees.

use loom::thread;
use std::sync::Arc;
use wire::protocol::mailbox::{self, ANSWERED, Mailbox};

use crate::world::{Futex, Memory, NoBarriers, Sound, Strength, Unordered, W32, W64, explore};

struct World<S> {
    state: W32<S>,
    asked: W64<S>,
    awake: W32<S>,
    frame: Memory,
    sleepers: Futex,
}

impl<S: Strength> World<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: W32::new(mailbox::FREE),
            asked: W64::new(0),
            awake: W32::new(1),
            frame: Memory::new(0),
            sleepers: Futex::new(),
        })
    }

    fn mailbox(&self) -> Mailbox<'_, W32<S>, W64<S>> {
        Mailbox {
            state: &self.state,
            asked: &self.asked,
            bit: 4,
            awake: &self.awake,
        }
    }

    /// The answer to `question`; `None`: it is to be asked over the socket.
    fn ask(&self, question: u32) -> Option<u32> {
        let mailbox = self.mailbox();
        self.frame.write(question);
        if !mailbox.post() {
            return None;
        }
        loop {
            if let Some(answer) = mailbox.answer() {
                assert_eq!(answer, ANSWERED);
                return Some(self.frame.read());
            }
            if let Some(state) = mailbox.about_to_sleep() {
                self.sleepers.wait(&self.state, state);
            }
        }
    }

    /// Answers who has asked; how many that were.
    fn look(&self) -> u32 {
        let mailbox = self.mailbox();
        if mailbox::collect(&self.asked) & 4 == 0 || !mailbox.take() {
            return 0;
        }
        self.frame.write(self.frame.read() + 100);
        mailbox.give(ANSWERED, || self.sleepers.wake_all());
        1
    }

    /// Looks `looks` times before it sleeps, and once more.
    fn serve(&self, looks: u32, once_more: bool) -> u32 {
        let mut served: u32 = (0..looks).map(|_| self.look()).sum();
        mailbox::set_awake(&self.awake, false);
        if once_more {
            served += self.look();
        }
        served
    }
}

fn a_question_while_it_goes_to_sleep<S: Strength>(once_more: bool) {
    explore(Some(4), move || {
        let world = World::<S>::new();
        let other = Arc::clone(&world);
        let client = thread::spawn(move || [1, 2].map(|question| (question, other.ask(question))));
        let served = world.serve(2, once_more);
        let answers = client.join().unwrap();
        let given = answers.iter().filter_map(|(question, answer)| {
            assert!(
                answer.is_none_or(|answer| answer == question + 100),
                "another answer"
            );
            *answer
        });
        assert_eq!(given.count(), served as usize, "answered and asked again");
    });
}

#[test]
fn a_question_is_answered_once_or_asked_over_the_socket() {
    a_question_while_it_goes_to_sleep::<Sound>(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_a_question_that_is_slept_through_without_a_barrier() {
    a_question_while_it_goes_to_sleep::<NoBarriers>(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_finds_a_question_that_is_slept_through_without_a_last_look() {
    a_question_while_it_goes_to_sleep::<Sound>(false);
}

#[test]
#[should_panic(expected = "another answer")]
fn the_model_finds_a_frame_that_is_read_too_early_without_order() {
    a_question_while_it_goes_to_sleep::<Unordered>(true);
}
