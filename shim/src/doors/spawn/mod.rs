//! `posix_spawn`, `posix_spawnp`, and `system` and `popen`, which use them
//! inside libc.

mod actions;
mod popen;
mod system;

use super::exec::{DEEPEST, Strings, along_path, hand_over_for, interpreted, with_env};
use super::next::next;
use crate::calls::{self, NOT_OURS};
use crate::sys::syscall;
use actions::Plan;
use core::ffi::{c_char, c_int};
use core::ptr;
use libc::{pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

type Spawn = unsafe extern "C" fn(
    *mut pid_t,
    *const c_char,
    *const posix_spawn_file_actions_t,
    *const posix_spawnattr_t,
    Strings,
    Strings,
) -> c_int;

/// What the program asked for, but for the program file and the actions.
#[derive(Clone, Copy)]
struct Request {
    pid: *mut pid_t,
    attr: *const posix_spawnattr_t,
    argv: Strings,
    env: Strings,
}

impl Request {
    /// # Safety
    /// As `posix_spawn(3)`.
    unsafe fn hand_on(
        self,
        spawn: Option<Spawn>,
        file: *const c_char,
        actions: *const posix_spawn_file_actions_t,
    ) -> c_int {
        let Some(spawn) = spawn else {
            return libc::ENOSYS;
        };
        let Self {
            pid,
            attr,
            argv,
            env,
        } = self;
        // SAFETY: the caller's own promises, handed on.
        unsafe { with_env(env, file, |env| spawn(pid, file, actions, attr, argv, env)) }
            .unwrap_or(libc::ENOMEM)
    }
}

/// Starts the program at `path`. Gives an error number.
///
/// # Safety
/// As `posix_spawn(3)`.
unsafe fn start(
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    request: Request,
) -> c_int {
    let mut plan = Plan::new();
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        match plan.adopt(actions) {
            Ok(actions) => launch(&plan, path, actions, request, 0),
            Err(e) => e,
        }
    }
}

/// Starts the program at `path` with the actions of `plan`, as the interpreter
/// of so many scripts. Gives an error number.
///
/// # Safety
/// As `posix_spawn(3)`.
unsafe fn launch(
    plan: &Plan,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    request: Request,
    depth: usize,
) -> c_int {
    let mut real = [0u8; 4096];
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let n = plan.program_path(path, &mut real);
        if n < 0 && n != NOT_OURS {
            return super::next::code(n);
        }
        let program = if n == NOT_OURS {
            path
        } else {
            real.as_ptr().cast()
        };
        if n != NOT_OURS {
            let deeper = depth.wrapping_add(1);
            let script = interpreted(program, path, request.argv, |interpreter, argv| {
                if deeper > DEEPEST {
                    return libc::ELOOP;
                }
                launch(
                    plan,
                    interpreter,
                    actions,
                    Request { argv, ..request },
                    deeper,
                )
            });
            if let Some(result) = script {
                return result;
            }
        }
        let handed = hand_over_for(program, true);
        if handed < 0 {
            return super::next::code(handed);
        }
        request.hand_on(next!(c"posix_spawn" as Spawn), program, actions)
    }
}

/// What a search along `PATH` found.
struct Found {
    path: [u8; 4096],
    any_ours: bool,
    denied: bool,
    done: bool,
}

impl Found {
    /// Looks at one candidate; true ends the search.
    ///
    /// # Safety
    /// `candidate` must be a C string.
    unsafe fn look(&mut self, plan: &Plan, candidate: *const c_char) -> bool {
        // SAFETY: the caller's promise; the length is checked before the copy.
        unsafe {
            let mut real = [0u8; 4096];
            let n = plan.program_path(candidate, &mut real);
            self.any_ours |= n != NOT_OURS;
            if n < 0 && n != NOT_OURS {
                self.denied |= n == -(libc::EACCES as isize);
                return false;
            }
            let length = libc::strlen(candidate);
            if length > 4095 {
                return false;
            }
            let into = self.path.as_mut_ptr();
            ptr::copy_nonoverlapping(candidate.cast::<u8>(), into, length.wrapping_add(1));
            let at = libc::AT_FDCWD;
            let answer = if n == NOT_OURS {
                syscall!(libc::SYS_faccessat, at, candidate, libc::X_OK)
            } else {
                match calls::faccessat2(at, candidate, libc::X_OK, 0) {
                    NOT_OURS => 0,
                    answer => answer,
                }
            };
            self.denied |= answer == -(libc::EACCES as isize);
            self.done = answer >= 0;
            self.done
        }
    }
}

/// # Safety
/// As `posix_spawn(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: Strings,
    env: Strings,
) -> c_int {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        start(
            path,
            actions,
            Request {
                pid,
                attr,
                argv,
                env,
            },
        )
    }
}

/// # Safety
/// As `posix_spawnp(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: Strings,
    env: Strings,
) -> c_int {
    let request = Request {
        pid,
        attr,
        argv,
        env,
    };
    let mut plan = Plan::new();
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        if *file == 0 || !libc::strchr(file, c_int::from(b'/')).is_null() {
            return start(file, actions, request);
        }
        let actions = match plan.adopt(actions) {
            Ok(actions) => actions,
            Err(e) => return e,
        };
        let mut found = Found {
            path: [0; 4096],
            any_ours: false,
            denied: false,
            done: false,
        };
        along_path(file, |candidate| found.look(&plan, candidate).then_some(()));
        if !found.any_ours {
            return request.hand_on(next!(c"posix_spawnp" as Spawn), file, actions);
        }
        if !found.done {
            return if found.denied {
                libc::EACCES
            } else {
                libc::ENOENT
            };
        }
        launch(&plan, found.path.as_ptr().cast(), actions, request, 0)
    }
}
