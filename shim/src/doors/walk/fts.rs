//! `fts_open` to `fts_close`, with libc's structures.
//!
//! A walk of ours never changes the working directory: every access path is
//! the full path from where the walk began, as with `FTS_NOCHDIR`. Entries come
//! from libc's `malloc`, one by one, because the program decides how long a
//! walk of any size lives; the stream itself is a slot of our range.

use super::{look, may_reach};
use crate::doors::grow::{close, entries, is_dot, open_dir};
use crate::doors::next::{code, null, pass, set_errno};
use crate::doors::slots;
use core::ffi::{c_char, c_int, c_long, c_short, c_ushort, c_void};
use core::ptr::{self, null_mut};
use libc::stat;

const FTS_COMFOLLOW: c_int = 0x01;
const FTS_LOGICAL: c_int = 0x02;
const FTS_NOCHDIR: c_int = 0x04;
const FTS_NOSTAT: c_int = 0x08;
const FTS_PHYSICAL: c_int = 0x10;
const FTS_SEEDOT: c_int = 0x20;
const FTS_XDEV: c_int = 0x40;
const FTS_OPTIONMASK: c_int = 0xff;
const FTS_NAMEONLY: c_int = 0x100;
const FTS_STOP: c_int = 0x200;

const FTS_D: c_ushort = 1;
const FTS_DC: c_ushort = 2;
const FTS_DEFAULT: c_ushort = 3;
const FTS_DNR: c_ushort = 4;
const FTS_DOT: c_ushort = 5;
const FTS_DP: c_ushort = 6;
const FTS_ERR: c_ushort = 7;
const FTS_F: c_ushort = 8;
const FTS_INIT: c_ushort = 9;
const FTS_NS: c_ushort = 10;
const FTS_NSOK: c_ushort = 11;
const FTS_SL: c_ushort = 12;
const FTS_SLNONE: c_ushort = 13;

const FTS_AGAIN: c_ushort = 1;
const FTS_FOLLOW: c_ushort = 2;
const FTS_NOINSTR: c_ushort = 3;
const FTS_SKIP: c_ushort = 4;

/// `FTSENT`.
#[repr(C)]
pub(crate) struct Entry {
    cycle: *mut Entry,
    parent: *mut Entry,
    link: *mut Entry,
    number: c_long,
    pointer: *mut c_void,
    accpath: *mut c_char,
    path: *mut c_char,
    errno: c_int,
    symfd: c_int,
    pathlen: c_ushort,
    namelen: c_ushort,
    ino: libc::ino_t,
    dev: libc::dev_t,
    nlink: libc::nlink_t,
    level: c_short,
    info: c_ushort,
    flags: c_ushort,
    instr: c_ushort,
    statp: *mut stat,
    name: [c_char; 1],
}

type Compare = Option<unsafe extern "C" fn(*mut *const Entry, *mut *const Entry) -> c_int>;
type Order = Option<unsafe extern "C" fn(*const c_void, *const c_void) -> c_int>;

/// `FTS`, and what is ours behind it.
#[repr(C)]
pub(crate) struct Fts {
    cur: *mut Entry,
    child: *mut Entry,
    array: *mut *mut Entry,
    dev: libc::dev_t,
    path: *mut c_char,
    rfd: c_int,
    pathlen: c_int,
    nitems: c_int,
    compar: Compare,
    options: c_int,
    magic: u64,
    root_parent: *mut Entry,
}

const MAGIC: u64 = u64::from_le_bytes(*b"capioFTS");
/// The path buffer: the slot's rest. The kernel takes paths of 4096 bytes.
const PATH: usize = slots::SLOT - 256;
const _: () = assert!(size_of::<Fts>() <= 256);

fn ours(fts: *mut Fts) -> bool {
    // SAFETY: a slot in use is readable and aligned to a page.
    slots::owns(fts.cast()) && unsafe { (*fts).magic == MAGIC }
}

/// # Safety
/// `name` must be `n` bytes long.
unsafe fn new_entry(fts: &Fts, name: *const c_char, n: usize) -> *mut Entry {
    let head = size_of::<Entry>()
        .wrapping_add(n)
        .wrapping_add(1)
        .next_multiple_of(16);
    // SAFETY: the block holds entry, name and `stat`; all zero is valid for each.
    unsafe {
        let block = libc::calloc(1, head.wrapping_add(size_of::<stat>())).cast::<u8>();
        if block.is_null() {
            return null_mut();
        }
        let entry = block.cast::<Entry>();
        ptr::copy_nonoverlapping(name, (&raw mut (*entry).name).cast(), n);
        // With FTS_NOSTAT the program is promised nothing here; the room is there.
        (*entry).statp = block.wrapping_add(head).cast();
        (*entry).namelen = n as c_ushort;
        (*entry).path = fts.path;
        (*entry).accpath = fts.path;
        (*entry).instr = FTS_NOINSTR;
        entry
    }
}

/// # Safety
/// `entry` must be of ours.
unsafe fn name_of(entry: *mut Entry) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*entry).name).cast() }
}

/// # Safety
/// The list must be ours and no longer used.
unsafe fn free_list(mut head: *mut Entry) {
    while !head.is_null() {
        // SAFETY: the caller's promise.
        unsafe {
            let next = (*head).link;
            libc::free(head.cast());
            head = next;
        }
    }
}

impl Fts {
    fn has(&self, option: c_int) -> bool {
        self.options & option != 0
    }

    /// Looks at `entry` by `path`, which gives its kind.
    ///
    /// # Safety
    /// `entry` must be of ours, `path` a C string.
    unsafe fn look(&self, entry: *mut Entry, path: *const c_char, follow: bool) -> c_ushort {
        // SAFETY: the caller's promises; parents outlive their children.
        unsafe {
            let e = &mut *entry;
            let st = &mut *e.statp;
            let follow = follow || self.has(FTS_LOGICAL);
            let done = look(path, st, follow);
            if done < 0 {
                if follow && look(path, st, false) >= 0 {
                    set_errno(0);
                    return FTS_SLNONE;
                }
                e.errno = code(done);
                *st = core::mem::zeroed();
                return FTS_NS;
            }
            match st.st_mode & libc::S_IFMT {
                libc::S_IFDIR => self.directory_kind(entry),
                libc::S_IFLNK => FTS_SL,
                libc::S_IFREG => FTS_F,
                _ => FTS_DEFAULT,
            }
        }
    }

    /// # Safety
    /// `entry` must be a directory of ours with its `stat` filled in.
    unsafe fn directory_kind(&self, entry: *mut Entry) -> c_ushort {
        // SAFETY: the caller's promise; parents outlive their children.
        unsafe {
            let e = &mut *entry;
            let st = &*e.statp;
            (e.dev, e.ino, e.nlink) = (st.st_dev, st.st_ino, st.st_nlink);
            if is_dot(name_of(entry)) {
                return FTS_DOT;
            }
            let mut above = e.parent;
            while !above.is_null() && (*above).level >= 0 {
                if ((*above).dev, (*above).ino) == (e.dev, e.ino) {
                    e.cycle = above;
                    return FTS_DC;
                }
                above = (*above).parent;
            }
            FTS_D
        }
    }

    /// Orders a list by the program's comparison, if it gave one.
    ///
    /// # Safety
    /// `head` must be a list of ours of `n` entries.
    unsafe fn sort(&mut self, head: *mut Entry, n: usize) -> *mut Entry {
        if self.compar.is_none() || n < 2 {
            return head;
        }
        let word = size_of::<*mut Entry>();
        // SAFETY: libc's allocator; the array has room for `n` entries.
        unsafe {
            let array = libc::realloc(self.array.cast(), n.wrapping_mul(word));
            if array.is_null() {
                return head;
            }
            self.array = array.cast();
            let (mut at, mut count) = (head, 0usize);
            while !at.is_null() && count < n {
                *self.array.wrapping_add(count) = at;
                count = count.wrapping_add(1);
                at = (*at).link;
            }
            let order = core::mem::transmute::<Compare, Order>(self.compar);
            libc::qsort(array, count, word, order);
            let mut next = null_mut();
            for i in (0..count).rev() {
                let entry = *self.array.wrapping_add(i);
                (*entry).link = next;
                next = entry;
            }
            next
        }
    }

    /// Where a child's name begins in the path of `parent`.
    ///
    /// # Safety
    /// `parent` must be of ours, its path in the buffer.
    unsafe fn name_at(&self, parent: *const Entry) -> usize {
        // SAFETY: the path length lies inside the buffer.
        unsafe {
            let len = (*parent).pathlen as usize;
            let slash = len > 0 && *self.path.wrapping_add(len.wrapping_sub(1)) == b'/' as c_char;
            if slash { len } else { len.wrapping_add(1) }
        }
    }

    /// Puts `name` behind the path of `parent`. False: too long.
    ///
    /// # Safety
    /// Both must be valid, `name` `n` bytes long.
    unsafe fn put(&mut self, parent: *const Entry, name: *const c_char, n: usize) -> bool {
        // SAFETY: the room is checked before the copy.
        unsafe {
            let at = self.name_at(parent);
            if at.wrapping_add(n) >= PATH - 1 {
                return false;
            }
            *self.path.wrapping_add(at.wrapping_sub(1)) = b'/' as c_char;
            ptr::copy_nonoverlapping(name, self.path.wrapping_add(at), n);
            *self.path.wrapping_add(at.wrapping_add(n)) = 0;
        }
        true
    }

    /// The list of what is in the current directory. Null: nothing, or an
    /// error that is noted in the entry.
    ///
    /// # Safety
    /// `cur` must be a directory whose path is in the buffer.
    unsafe fn build(&mut self, names_only: bool, reading: bool) -> *mut Entry {
        let cur = self.cur;
        // SAFETY: the caller's promise.
        unsafe {
            let fd = open_dir(libc::AT_FDCWD, self.path);
            if fd < 0 {
                if reading {
                    (*cur).info = FTS_DNR;
                    (*cur).errno = code(fd);
                }
                return null(code(fd));
            }
            let (mut head, mut tail, mut n) = (null_mut::<Entry>(), null_mut::<Entry>(), 0usize);
            let mut wrong = 0;
            let answer = entries(fd as c_int, |record| {
                let name = (&raw const (*record).d_name).cast::<c_char>();
                if is_dot(name) && !self.has(FTS_SEEDOT) {
                    return true;
                }
                let kind = (*record).d_type;
                match self.child_of(cur, name, kind, names_only) {
                    Ok(entry) => {
                        if tail.is_null() {
                            head = entry
                        } else {
                            (*tail).link = entry
                        }
                        tail = entry;
                        n = n.wrapping_add(1);
                    }
                    Err(e) => wrong = e,
                }
                wrong == 0
            });
            close(fd as c_int);
            *self.path.wrapping_add((*cur).pathlen as usize) = 0;
            if answer < 0 {
                wrong = code(answer);
            }
            if wrong != 0 {
                free_list(head);
                (*cur).info = FTS_ERR;
                self.options |= FTS_STOP;
                return null(wrong);
            }
            if n == 0 && reading {
                (*cur).info = FTS_DP;
            }
            self.sort(head, n)
        }
    }

    /// A new entry for `name` in the directory `parent`.
    ///
    /// # Safety
    /// As `build`.
    unsafe fn child_of(
        &mut self,
        parent: *mut Entry,
        name: *const c_char,
        kind: u8,
        names_only: bool,
    ) -> Result<*mut Entry, c_int> {
        // SAFETY: the caller's promises.
        unsafe {
            let n = libc::strlen(name);
            if !self.put(parent, name, n) {
                return Err(libc::ENAMETOOLONG);
            }
            let entry = new_entry(self, name, n);
            if entry.is_null() {
                return Err(libc::ENOMEM);
            }
            (*entry).parent = parent;
            (*entry).level = (*parent).level.wrapping_add(1);
            (*entry).pathlen = self.name_at(parent).wrapping_add(n) as c_ushort;
            let skip_stat = self.has(FTS_NOSTAT)
                && self.has(FTS_PHYSICAL)
                && kind != libc::DT_DIR
                && kind != libc::DT_UNKNOWN;
            (*entry).info = if names_only || skip_stat {
                FTS_NSOK
            } else {
                self.look(entry, self.path, false)
            };
            Ok(entry)
        }
    }

    /// Makes a root the current entry.
    ///
    /// # Safety
    /// `entry` must be a root of ours.
    unsafe fn load(&mut self, entry: *mut Entry) {
        // SAFETY: roots were checked to fit the buffer when the walk was opened.
        unsafe {
            let e = &mut *entry;
            let name = name_of(entry);
            let n = libc::strlen(name);
            ptr::copy_nonoverlapping(name, self.path, n.wrapping_add(1));
            e.pathlen = n as c_ushort;
            let slash = libc::strrchr(name, b'/' as c_int);
            if !slash.is_null() && (slash != name || *slash.wrapping_add(1) != 0) {
                let last = slash.wrapping_add(1);
                let len = libc::strlen(last);
                ptr::copy(last, name, len.wrapping_add(1));
                e.namelen = len as c_ushort;
            }
            self.dev = e.dev;
        }
    }

    /// The step from a directory in pre-order.
    ///
    /// # Safety
    /// `cur` must be a directory in pre-order.
    unsafe fn descend(&mut self, cur: *mut Entry, instr: c_ushort) -> *mut Entry {
        // SAFETY: the caller's promise.
        unsafe {
            let elsewhere = self.has(FTS_XDEV) && (*cur).dev != self.dev;
            if instr == FTS_SKIP || elsewhere {
                free_list(core::mem::replace(&mut self.child, null_mut()));
                (*cur).info = FTS_DP;
                return cur;
            }
            if !self.child.is_null() && self.has(FTS_NAMEONLY) {
                self.options &= !FTS_NAMEONLY;
                free_list(core::mem::replace(&mut self.child, null_mut()));
            }
            if self.child.is_null() {
                self.child = self.build(false, true);
                if self.child.is_null() {
                    return if self.has(FTS_STOP) { null_mut() } else { cur };
                }
            }
            self.cur = core::mem::replace(&mut self.child, null_mut());
            self.show(self.cur)
        }
    }

    /// Puts the entry's path into the buffer and gives the entry out.
    ///
    /// # Safety
    /// `entry` must be below a root.
    unsafe fn show(&mut self, entry: *mut Entry) -> *mut Entry {
        // SAFETY: the path fitted when the entry was made.
        unsafe {
            let n = (*entry).namelen as usize;
            self.put((*entry).parent, name_of(entry), n);
        }
        entry
    }

    /// The entry after `done`: its next sibling, or its parent in post-order.
    ///
    /// # Safety
    /// `done` must be the current entry; it is freed.
    unsafe fn move_on(&mut self, done: *mut Entry) -> *mut Entry {
        // SAFETY: entries are linked and owned by this stream.
        unsafe {
            let mut done = done;
            loop {
                let (link, parent) = ((*done).link, (*done).parent);
                libc::free(done.cast());
                if link.is_null() {
                    return self.go_up(parent);
                }
                self.cur = link;
                if (*link).level == 0 {
                    self.load(link);
                    return link;
                }
                if (*link).instr == FTS_SKIP {
                    done = link;
                    continue;
                }
                self.show(link);
                if (*link).instr == FTS_FOLLOW {
                    (*link).info = self.look(link, self.path, true);
                    (*link).instr = FTS_NOINSTR;
                }
                return link;
            }
        }
    }

    /// # Safety
    /// `parent` must be the parent of the entry just left.
    unsafe fn go_up(&mut self, parent: *mut Entry) -> *mut Entry {
        self.cur = parent;
        // SAFETY: the dummy entry at the start has no parent but roots always.
        unsafe {
            if parent.is_null() || (*parent).level < 0 {
                self.cur = null_mut();
                return null(0);
            }
            *self.path.wrapping_add((*parent).pathlen as usize) = 0;
            (*parent).info = if (*parent).errno != 0 {
                FTS_ERR
            } else {
                FTS_DP
            };
        }
        parent
    }

    /// # Safety
    /// The stream must be open.
    unsafe fn read(&mut self) -> *mut Entry {
        if self.cur.is_null() || self.has(FTS_STOP) {
            return null_mut();
        }
        let cur = self.cur;
        // SAFETY: the current entry is alive.
        unsafe {
            let instr = core::mem::replace(&mut (*cur).instr, FTS_NOINSTR);
            let link = (*cur).info == FTS_SL || (*cur).info == FTS_SLNONE;
            if instr == FTS_AGAIN || (instr == FTS_FOLLOW && link) {
                (*cur).info = self.look(cur, self.path, instr == FTS_FOLLOW);
                return cur;
            }
            if (*cur).info == FTS_D {
                return self.descend(cur, instr);
            }
            self.move_on(cur)
        }
    }

    /// The roots, in the program's order. Null with `errno` when one is not
    /// to be had.
    ///
    /// # Safety
    /// `argv` must be a null-terminated list of C strings.
    unsafe fn roots(&mut self, argv: *const *const c_char) -> Result<*mut Entry, c_int> {
        let (mut head, mut tail, mut n) = (null_mut::<Entry>(), null_mut::<Entry>(), 0usize);
        // SAFETY: the caller's promise.
        unsafe {
            while !(*argv.wrapping_add(n)).is_null() {
                let path = *argv.wrapping_add(n);
                let len = libc::strlen(path);
                let wrong = match len {
                    0 => libc::ENOENT,
                    _ if len >= PATH - 1 => libc::ENAMETOOLONG,
                    _ => 0,
                };
                let entry = if wrong == 0 {
                    new_entry(self, path, len)
                } else {
                    null_mut()
                };
                if entry.is_null() {
                    free_list(head);
                    return Err(if wrong == 0 { libc::ENOMEM } else { wrong });
                }
                (*entry).parent = self.root_parent;
                (*entry).info = self.look(entry, path, self.has(FTS_COMFOLLOW));
                if (*entry).info == FTS_DOT {
                    (*entry).info = FTS_D;
                }
                if tail.is_null() {
                    head = entry
                } else {
                    (*tail).link = entry
                }
                tail = entry;
                n = n.wrapping_add(1);
            }
            Ok(self.sort(head, n))
        }
    }

    /// # Safety
    /// The stream must be fresh, `argv` as `roots` takes it.
    unsafe fn start(&mut self, argv: *const *const c_char) -> c_int {
        // SAFETY: the caller's promises.
        unsafe {
            self.root_parent = new_entry(self, c"".as_ptr(), 0);
            self.cur = new_entry(self, c"".as_ptr(), 0);
            if self.root_parent.is_null() || self.cur.is_null() {
                return libc::ENOMEM;
            }
            (*self.root_parent).level = -1;
            (*self.cur).info = FTS_INIT;
            match self.roots(argv) {
                Ok(head) => (*self.cur).link = head,
                Err(e) => return e,
            }
            0
        }
    }

    /// Frees all entries.
    ///
    /// # Safety
    /// The stream must not be used afterwards.
    unsafe fn free(&mut self) {
        // SAFETY: lists of one level hang on the entry that is current there.
        unsafe {
            free_list(self.child);
            let mut at = self.cur;
            while !at.is_null() && at != self.root_parent {
                let next = if (*at).link.is_null() {
                    (*at).parent
                } else {
                    (*at).link
                };
                libc::free(at.cast());
                at = next;
            }
            libc::free(self.root_parent.cast());
            libc::free(self.array.cast());
            self.magic = 0;
        }
    }
}

/// # Safety
/// As `fts_open(3)`, one of whose roots may be ours.
unsafe fn open(argv: *const *const c_char, options: c_int, compar: Compare) -> *mut Fts {
    if options & !FTS_OPTIONMASK != 0 {
        return null(libc::EINVAL);
    }
    let Some(slot) = slots::take() else {
        return null(libc::ENOMEM);
    };
    let fts = slot.cast::<Fts>();
    // SAFETY: a slot just taken is ours alone; zero is valid for every field.
    unsafe {
        fts.write(core::mem::zeroed());
        (*fts).magic = MAGIC;
        (*fts).path = slot.wrapping_add(256).cast();
        (*fts).pathlen = PATH as c_int;
        (*fts).rfd = -1;
        (*fts).compar = compar;
        (*fts).options = options | FTS_NOCHDIR;
        let wrong = (*fts).start(argv);
        if wrong != 0 {
            (*fts).free();
            slots::give(slot);
            return null(wrong);
        }
    }
    fts
}

/// # Safety
/// As `fts_open(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fts_open(
    argv: *const *const c_char,
    options: c_int,
    compar: Compare,
) -> *mut Fts {
    // SAFETY: the caller's own promises, handed on.
    unsafe {
        let mut n = 0usize;
        while !(*argv.wrapping_add(n)).is_null() {
            if may_reach(*argv.wrapping_add(n)) {
                return open(argv, options, compar);
            }
            n = n.wrapping_add(1);
        }
        pass!(c"fts_open",
            fn(argv: *const *const c_char, options: c_int, compar: Compare) -> *mut Fts,
            else null_mut())
    }
}

/// # Safety
/// As `fts_read(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fts_read(fts: *mut Fts) -> *mut Entry {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        if ours(fts) {
            return (*fts).read();
        }
        pass!(c"fts_read", fn(fts: *mut Fts) -> *mut Entry, else null_mut())
    }
}

/// # Safety
/// As `fts_children(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fts_children(fts: *mut Fts, instr: c_int) -> *mut Entry {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        if !ours(fts) {
            return pass!(c"fts_children",
                fn(fts: *mut Fts, instr: c_int) -> *mut Entry, else null_mut());
        }
        if instr != 0 && instr != FTS_NAMEONLY {
            return null(libc::EINVAL);
        }
        set_errno(0);
        let f = &mut *fts;
        if f.cur.is_null() || f.has(FTS_STOP) {
            return null_mut();
        }
        match (*f.cur).info {
            FTS_INIT => return (*f.cur).link,
            FTS_D => {}
            _ => return null_mut(),
        }
        free_list(core::mem::replace(&mut f.child, null_mut()));
        f.options |= instr;
        f.child = f.build(instr == FTS_NAMEONLY, false);
        f.child
    }
}

/// # Safety
/// As `fts_set(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fts_set(_: *mut Fts, entry: *mut Entry, instr: c_int) -> c_int {
    let known = [0, FTS_AGAIN, FTS_FOLLOW, FTS_NOINSTR, FTS_SKIP];
    let Some(instr) = known.into_iter().find(|k| c_int::from(*k) == instr) else {
        set_errno(libc::EINVAL);
        return 1;
    };
    // SAFETY: an entry of a walk, ours or libc's: one layout.
    unsafe { (*entry).instr = instr };
    0
}

/// # Safety
/// As `fts_close(3)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fts_close(fts: *mut Fts) -> c_int {
    // SAFETY: ours, or the caller's own promises, handed on.
    unsafe {
        if !ours(fts) {
            return pass!(c"fts_close", fn(fts: *mut Fts) -> c_int, else -1);
        }
        (*fts).free();
    }
    slots::give(fts.cast());
    0
}

/// The names for 64-bit files: on this platform one layout.
macro_rules! also {
    ($($alias:ident = $name:ident($($a:ident: $t:ty),*) -> $r:ty;)*) => {$(
        /// # Safety
        /// As the function without `64`.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $alias($($a: $t),*) -> $r {
            // SAFETY: the caller's own promises, handed on.
            unsafe { $name($($a),*) }
        }
    )*};
}

also! {
    fts64_open = fts_open(argv: *const *const c_char, options: c_int, compar: Compare) -> *mut Fts;
    fts64_read = fts_read(fts: *mut Fts) -> *mut Entry;
    fts64_children = fts_children(fts: *mut Fts, instr: c_int) -> *mut Entry;
    fts64_set = fts_set(fts: *mut Fts, entry: *mut Entry, instr: c_int) -> c_int;
    fts64_close = fts_close(fts: *mut Fts) -> c_int;
}
