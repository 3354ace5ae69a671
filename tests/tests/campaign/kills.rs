//! Rounds of load in which programs are killed and stopped, and the coordinator
//! at the end.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use capio_tests::{Served, plain_only};
use nix::sys::signal::Signal;

use crate::client::{ABSENT, Client, LOST, Role, SHORT, WHOLE};
use crate::session::{
    FILES, Setup, descriptors, expect_all_back, expect_room, file, run, snapshot, step,
};
use crate::{Dice, many};

/// Programs that work on files of their own.
const CHURNS: usize = 5;
/// Kills in one round.
const KILLS: u64 = 25;
/// How long one may wait for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// A round that is going on.
struct Round<'a> {
    served: &'a Served,
    setup: Setup,
    number: u64,
    clients: Vec<Client>,
    started: u64,
}

impl<'a> Round<'a> {
    /// Starts all of its programs.
    fn start(served: &'a Served, setup: Setup, number: u64, dice: &mut Dice) -> Self {
        let clients = Vec::new();
        let mut round = Self {
            served,
            setup,
            number,
            clients,
            started: 0,
        };
        let makers = (0..FILES).map(Role::Maker);
        let readers = (0..FILES * 2).map(|number| Role::Reader(number % FILES));
        let churns = (0..CHURNS).map(|_| Role::Churn);
        let mut roles: Vec<Role> = makers.chain(readers).chain(churns).collect();
        while !roles.is_empty() {
            let next = dice.pick(roles.len() as u64) as usize;
            let role = roles.swap_remove(next);
            round.add(role, dice);
        }
        round
    }

    fn entry(&self, number: u64) -> PathBuf {
        let name = format!("r{}.{number}", self.number);
        self.served.scratch.outside().join(name)
    }

    fn log(&self) -> String {
        format!("r{}.log", self.number)
    }

    fn add(&mut self, role: Role, dice: &mut Dice) {
        let id = self.started;
        self.started += 1;
        let seed = dice.pick(1 << 30).to_string();
        let entry = self.entry(id).display().to_string();
        let dir = format!("r{}.c{id}", self.number);
        let log = self.log();
        let size = [20_000, 300_000, 3_000_000][dice.pick(3) as usize];
        let size = (64 + dice.pick(size)).to_string();
        let path = |number| file(self.number, number);
        let words: Vec<String> = match role {
            Role::Maker(n) => {
                let (kind, path) = (self.setup.kind(n).to_owned(), path(n));
                vec!["make".into(), kind, path, seed, size]
            }
            Role::Reader(n) => vec!["read".into(), path(n)],
            Role::Churn => vec!["churn".into(), dir, seed, entry, log],
        };
        let step = step(role, self.number);
        let client = Client::start(self.served, &step, role, id, &words);
        self.clients.push(client);
    }

    /// Kills somebody who lives, at a random moment.
    fn kill(&mut self, dice: &mut Dice) {
        let fresh = dice.pick(5) == 0;
        if fresh {
            self.add(Role::Churn, dice);
        }
        let most = if fresh { 6_000 } else { 60_000 };
        std::thread::sleep(Duration::from_micros(dice.pick(most)));
        let mut alive: Vec<&mut Client> = self.clients.iter_mut().collect();
        alive.retain_mut(|client| !client.has_ended());
        // Most of those who live to the end of a round are churning.
        let pick = dice.pick(alive.len() as u64) as usize;
        let Some(victim) = (if fresh {
            alive.pop()
        } else {
            Some(alive.swap_remove(pick))
        }) else {
            return;
        };
        victim.signal(Signal::SIGKILL, dice.pick(3) == 0);
        if victim.role == Role::Churn && !fresh {
            self.add(Role::Churn, dice);
        }
    }

    /// Stops somebody for a while; the others go on.
    fn stop_one(&mut self, dice: &mut Dice) {
        let pick = dice.pick(self.clients.len() as u64) as usize;
        let Some(client) = self.clients.get_mut(pick) else {
            return;
        };
        if client.has_ended() {
            return;
        }
        client.signal(Signal::SIGSTOP, false);
        std::thread::sleep(Duration::from_millis(dice.pick(300)));
        client.signal(Signal::SIGCONT, false);
    }

    /// Lets everybody come to an end.
    fn finish(&mut self) {
        for id in 0..self.started {
            let mut stop = self.entry(id).into_os_string();
            stop.push(".stop");
            fs::write(stop, "").expect("a note can be left");
        }
        for number in self.makers_hit() {
            // It may have been killed before it has joined its step.
            self.served
                .capio(&["done", &step(Role::Maker(number), self.number)]);
        }
        self.wait(PATIENCE);
    }

    fn wait(&mut self, patience: Duration) {
        let start = Instant::now();
        while !self.clients.iter_mut().all(Client::has_ended) {
            if start.elapsed() > patience {
                let mut alive: Vec<_> = self.clients.iter_mut().collect();
                alive.retain_mut(|client| !client.has_ended());
                let hang: String = alive.iter().map(|client| client.describe()).collect();
                let state = self.served.capio(&["ps"]);
                let state = String::from_utf8_lossy(&state.stdout).into_owned();
                panic!("not ended in {patience:?}:\n{hang}{state}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn makers_hit(&self) -> Vec<usize> {
        let hit = self.clients.iter().filter(|client| client.hit);
        hit.filter_map(|client| match client.role {
            Role::Maker(number) => Some(number),
            _ => None,
        })
        .collect()
    }

    /// Everybody who was left alone saw what the rules say.
    fn judge(&self) {
        let lost = self.makers_hit();
        let unharmed = self.clients.iter().filter(|client| !client.hit);
        for client in unharmed {
            match client.role {
                Role::Reader(number) if lost.contains(&number) => {
                    let bad = if self.setup.goes_on { SHORT } else { LOST };
                    client.expect(&[WHOLE, bad, ABSENT], "its maker was killed");
                }
                _ => client.expect(&[WHOLE], "nobody has touched what it needs"),
            }
        }
        let doubt = !self.setup.goes_on && self.clients.iter().any(|client| client.hit);
        let allowed: &[i32] = if doubt {
            &[WHOLE, LOST, ABSENT]
        } else {
            &[WHOLE, ABSENT]
        };
        let log = run(self.served, "look", self.number, &["log", &self.log()]);
        log.expect(allowed, "records of several programs");
    }
}

/// Rounds on one session; then the coordinator is killed or stopped.
fn campaign(setup: Setup, rounds: u64, salt: u64) -> u64 {
    let mut dice = Dice::new(salt);
    let served = setup.serve(rounds + 1);
    served.run("clean", "true");
    let before = descriptors(&served);
    let mut kills = 0;
    for number in 0..rounds {
        let mut round = Round::start(&served, setup, number, &mut dice);
        for kill in 0..KILLS {
            if kill % 8 == 7 {
                round.stop_one(&mut dice);
            }
            round.kill(&mut dice);
            kills += 1;
        }
        round.finish();
        round.judge();
        drop(round);
        expect_all_back(&served, before);
        expect_room(&served, setup, number);
        expect_all_back(&served, before);
    }
    let mut last = Round::start(&served, setup, rounds, &mut dice);
    std::thread::sleep(Duration::from_millis(50 + dice.pick(400)));
    served.running.signal(Signal::SIGKILL);
    last.wait(Duration::from_millis(1500));
    for client in &last.clients {
        client.expect(&[WHOLE, LOST], "the coordinator was killed");
    }
    expect_gone(&served);
    kills
}

fn expect_gone(served: &Served) {
    let start = Instant::now();
    while served.session.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{} is left",
            served.session.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills of one test, of three that have 500 together, or 20,000.
fn rounds() -> u64 {
    many(8, 267)
}

fn run_campaign(setup: Setup, salt: u64) {
    if plain_only() {
        return;
    }
    // A session of its own now and then: a leak shows, and ends are tried, too.
    let most = if setup.store {
        u64::MAX
    } else {
        many(4, u64::MAX)
    };
    let mut left = rounds().min(most);
    let mut kills = 0;
    while left > 0 {
        let now = left.min(30);
        kills += campaign(setup, now, salt + left);
        left -= now;
    }
    println!("{kills} kills");
}

#[test]
fn nobody_mistakes_what_killed_programs_leave_for_a_whole_file() {
    let setup = Setup {
        cache: 32,
        store: true,
        goes_on: false,
    };
    run_campaign(setup, 1000);
}

#[test]
fn what_killed_programs_have_written_is_whole_blocks() {
    let setup = Setup {
        cache: 32,
        store: true,
        goes_on: true,
    };
    run_campaign(setup, 2000);
}

#[test]
fn a_cache_without_a_store_can_be_filled_again_after_any_death() {
    let setup = Setup {
        cache: 192,
        store: false,
        goes_on: false,
    };
    run_campaign(setup, 3000);
}

/// Who is stopped holds up nobody who does not need it.
#[test]
fn a_stopped_program_holds_up_nobody_else() {
    if plain_only() {
        return;
    }
    let mut dice = Dice::new(4000);
    let setup = Setup {
        cache: 32,
        store: true,
        goes_on: false,
    };
    let served = setup.serve(1);
    let entry = |id: u64| served.scratch.outside().join(format!("e{id}"));
    let start = |id: u64| {
        let entry = entry(id).display().to_string();
        let words = ["churn", &format!("d{id}"), &id.to_string(), &entry, "-"];
        let words = words.map(str::to_owned);
        Client::start(&served, "churn", Role::Churn, id, &words)
    };
    let mut clients: Vec<Client> = (0..4).map(start).collect();
    let turns = |id: u64| {
        let text = fs::read_to_string(entry(id)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let progress = |ids: &[u64], from: &[u64]| ids.iter().zip(from).all(|(id, n)| turns(*id) > *n);
    for turn in 0..many(20, 200) {
        std::thread::sleep(Duration::from_micros(dice.pick(50_000)));
        let stopped = dice.pick(4) as usize;
        clients[stopped].signal(Signal::SIGSTOP, false);
        let others: Vec<u64> = (0..4).filter(|id| *id != stopped as u64).collect();
        for _ in 0..2 {
            let now: Vec<u64> = others.iter().map(|id| turns(*id)).collect();
            let since = Instant::now();
            while !progress(&others, &now) {
                assert!(
                    since.elapsed() < Duration::from_secs(5),
                    "turn {turn}: others wait for a stopped program\n{:#}",
                    snapshot(&served)
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if turn == 0 {
            // For seconds: it is no dead-lock, nor dead.
            std::thread::sleep(Duration::from_secs(3));
        }
        clients[stopped].signal(Signal::SIGCONT, false);
    }
    for id in 0..4 {
        let stop = entry(id).with_extension("stop");
        fs::write(stop, "").expect("a note can be left");
    }
    for client in &mut clients {
        let since = Instant::now();
        while !client.has_ended() {
            assert!(since.elapsed() < PATIENCE, "hangs: {}", client.describe());
            std::thread::sleep(Duration::from_millis(5));
        }
        client.expect(&[WHOLE], "it was stopped for a while");
    }
    let before = descriptors(&served);
    expect_all_back(&served, before);
    served.stop();
}
