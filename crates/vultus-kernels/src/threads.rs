//! The threads that kernels run on: rayon's, which wait awake for the next kernel where there are many.
//!
//! In: tasks, each of which may run on any thread. Out: when all are done. A kernel that is called from outside of rayon's pool hands
//! its tasks to it and sleeps until they are done, which costs more than a small kernel itself. So large pieces of work of several
//! kernels go in as a whole ([`enter`]). A training step, or one picture through a network, is many kernels, one after the other, each of
//! which takes all cores for some hundred microseconds or less, and a thread that goes to sleep in between needs tens of them to wake up;
//! so the threads that share such work are a team ([`lead`]), whose members look for their next task for a while before they go. A leader
//! has the same team from one piece of work to the next.
//!
//! Each member begins with tasks of its own, the same ones in every kernel that works on the same numbers, so that it finds
//! them in its cache; when it has done those, it takes of the others', one by one, so that nobody waits for more than the end of
//! one task, and of what a thread of rayon's takes up while it waits.
//!
//! That is a danger, too: a thread may join the team in the middle of something that another thread waits for. Therefore nobody is
//! a member twice, and nobody stays for long when there is nothing to do; who has gone is asked again with the next kernel.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rayon::Yield;
use rayon::prelude::*;

use crate::shared::Shared;

/// Looks for work before a thread lets others have its core: some microseconds.
const SPINS: u32 = 200;
/// How long a member that is led looks for work in vain before its turn ends.
const PATIENCE: Duration = Duration::from_millis(2);
/// Most threads of a team that is led from outside of a pool: few samples are not many tasks, and each member is asked on its own.
const MOST_OUTSIDE: usize = 8;

/// Held by the work from outside that has the pool.
static INSIDE: Mutex<()> = Mutex::new(());

thread_local! {
    /// The team that this thread leads, whenever it does.
    static OWN: OnceCell<Arc<Team>> = const { OnceCell::new() };
    /// That team while this thread leads it, unless it is at work.
    static LED: Cell<*const Arc<Team>> = const { Cell::new(ptr::null()) };
    static ENGAGEMENT: Cell<Engagement> = const { Cell::new(Engagement::Free) };
}

/// What a thread is to teams, the last one that it began with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Engagement {
    Free,
    Member,
    Leader,
}

/// The pool for one piece of work from outside, unless another one has it.
fn pool_for_one() -> Option<MutexGuard<'static, ()>> {
    match INSIDE.try_lock() {
        Ok(guard) => Some(guard),
        // Work that panicked has left the pool.
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Does `work` on a thread of rayon's global pool, or where it is called if that is in a pool already.
///
/// One piece of work at a time goes inside; others stay on the threads that call. A thread of the pool that waits for a
/// part of its work takes up what else there is, and with many pieces inside it would begin one in the middle of another,
/// and so on, until its stack is full.
pub fn enter<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    match pool_for_one() {
        Some(_inside) => rayon::scope(|_| work()),
        None => work(),
    }
}

/// Does `work` of many kernels where it is called, while other threads of the pool that have nothing to do stay awake for its tasks. Outside
/// of a pool these are threads of the global one, one fewer than it has and at most seven, and one piece of work at a time has such a team.
pub fn lead<R>(work: impl FnOnce() -> R) -> R {
    if ENGAGEMENT.get() == Engagement::Leader {
        return work();
    }
    let outside = rayon::current_thread_index().is_none();
    let pool = if outside { pool_for_one() } else { None };
    if outside && pool.is_none() {
        return work();
    }
    let _engaged = Engaged::begin(Engagement::Leader);
    let most = if outside { MOST_OUTSIDE } else { usize::MAX };
    let new = || Arc::new(Team::new(rayon::current_num_threads().min(most)));
    let team = OWN.with(|own| Arc::clone(own.get_or_init(new)));
    let _led = Led::begin(&team);
    work()
}

/// `work(task)` of each task below `count`, on all threads that there are.
pub(crate) fn share(count: usize, work: impl Fn(usize) + Sync) {
    if count <= 1 {
        return (0..count).for_each(work);
    }
    let team = LED.replace(ptr::null());
    // SAFETY: a team stands there while its leader is inside `lead`, which is longer than this call.
    match unsafe { team.as_ref() } {
        Some(team) => {
            // What tasks share out goes to rayon, of which idle members take it.
            let _back = PutBack(team);
            team.share(count, &work);
        }
        None => (0..count).into_par_iter().for_each(&work),
    }
}

/// [`share`] of short tasks, of which a thread takes so many at a `once`.
pub(crate) fn share_runs(count: usize, once: usize, work: impl Fn(usize) + Sync) {
    share(count.div_ceil(once), |run| (run * once..count.min((run + 1) * once)).for_each(&work));
}

/// `work(task, chunk)` of each `length` numbers of `values`, the last chunk of which may be shorter.
///
/// # Panics
/// If `length` is 0.
pub fn share_chunks(values: &mut [f32], length: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    assert!(length > 0, "chunks of nothing");
    let total = values.len();
    let values = Shared::new(values);
    share(total.div_ceil(length), |task| {
        let first = task * length;
        // SAFETY: inside the values, and each task has its own.
        work(task, unsafe { std::slice::from_raw_parts_mut(values.at(first), length.min(total - first)) });
    });
}

/// `work(task, item)` of each item, which only its own task gets.
pub(crate) fn share_items<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(usize, T) + Sync) {
    let items: Vec<Mutex<Option<T>>> = items.map(|item| Mutex::new(Some(item))).collect();
    share(items.len(), |task| {
        let item = items[task].try_lock().ok().and_then(|mut item| item.take());
        work(task, item.expect("each task runs once"));
    });
}

/// Puts a team back where its leader finds it, when dropped.
struct PutBack<'a>(&'a Arc<Team>);

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        LED.set(self.0);
    }
}

/// Lets this thread's kernels find its team, until dropped.
struct Led<'a>(&'a Arc<Team>);

impl<'a> Led<'a> {
    fn begin(team: &'a Arc<Team>) -> Self {
        team.led.store(true, Ordering::Release);
        team.call();
        LED.set(team);
        Self(team)
    }
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        LED.set(ptr::null());
        self.0.led.store(false, Ordering::Release);
    }
}

/// Puts a thread's earlier engagement back, when dropped.
struct Engaged(Engagement);

impl Engaged {
    fn begin(engagement: Engagement) -> Self {
        Self(ENGAGEMENT.replace(engagement))
    }
}

impl Drop for Engaged {
    fn drop(&mut self) {
        ENGAGEMENT.set(self.0);
    }
}

/// Threads that wait for tasks, the first of which, the leader, is who gives them.
struct Team {
    /// How many kernels began.
    round: AtomicUsize,
    /// The tasks of the kernel that runs, or null.
    tasks: AtomicPtr<Tasks<'static>>,
    /// Members that may be looking at these tasks.
    busy: AtomicUsize,
    /// The next task of each member's own, the leader's first.
    places: Vec<Place>,
    /// Members that nobody is, but for the leader.
    free: Mutex<Vec<usize>>,
    /// How many members nobody is, and nobody was asked to be.
    absent: AtomicUsize,
    /// Whether more kernels may come.
    led: AtomicBool,
}

/// On a cache line, with the one next to it, of its own.
#[repr(align(128))]
struct Place(AtomicUsize);

/// Tasks of one kernel.
struct Tasks<'a> {
    count: usize,
    work: &'a (dyn Fn(usize) + Sync),
    /// What a member's task panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    fn new(members: usize) -> Self {
        Self {
            round: AtomicUsize::new(0),
            tasks: AtomicPtr::new(ptr::null_mut()),
            busy: AtomicUsize::new(0),
            places: (0..members).map(|_| Place(AtomicUsize::new(0))).collect(),
            free: Mutex::new((1..members).rev().collect()),
            absent: AtomicUsize::new(members - 1),
            led: AtomicBool::new(false),
        }
    }

    /// Asks the pool's threads to be the members that are absent.
    fn call(self: &Arc<Self>) {
        for _ in 0..self.absent.swap(0, Ordering::SeqCst) {
            let team = Arc::clone(self);
            rayon::spawn(move || team.join());
        }
    }

    /// A thread's turn as a member, unless it is engaged already, and came by while it waited for something.
    fn join(self: &Arc<Self>) {
        let is_free = ENGAGEMENT.get() == Engagement::Free;
        let seen = is_free.then(|| {
            let _engaged = Engaged::begin(Engagement::Member);
            let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let member = free().pop().expect("a member that is absent");
            let seen = self.help(member);
            free().push(member);
            seen
        });
        self.absent.fetch_add(1, Ordering::SeqCst);
        // Either the leader has seen that this member is absent, or the member sees that a kernel began as it went.
        let went_too_soon = seen.is_some_and(|seen| seen != self.round.load(Ordering::SeqCst));
        if went_too_soon {
            self.call();
        }
    }

    /// The leader's part: gives the tasks out, and returns when all are done.
    fn share(self: &Arc<Self>, count: usize, work: &(dyn Fn(usize) + Sync)) {
        for (member, place) in self.places.iter().enumerate() {
            place.0.store(self.first(member, count), Ordering::Relaxed);
        }
        let tasks = Tasks { count, work, panic: Mutex::new(None) };
        let back = TakenBack(self);
        self.tasks.store(ptr::from_ref(&tasks).cast_mut().cast(), Ordering::SeqCst);
        self.round.fetch_add(1, Ordering::SeqCst);
        self.call();
        self.take(0, &tasks);
        drop(back);
        if let Some(panic) = tasks.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// First task of a member's own.
    fn first(&self, member: usize, count: usize) -> usize {
        member * count / self.places.len()
    }

    /// Does tasks until there are none left: first the member's own, then those of who comes after it.
    fn take(&self, member: usize, tasks: &Tasks) {
        let members = self.places.len();
        for owner in (member..members).chain(0..member) {
            let end = self.first(owner + 1, tasks.count);
            loop {
                let task = self.places[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                (tasks.work)(task);
            }
        }
    }

    /// A member's part: does tasks of each kernel, until the leader has had none for long, or does something else for a moment; after
    /// some time for any moment. Returns how many kernels it saw begin.
    fn help(&self, member: usize) -> usize {
        let began = Instant::now();
        let (mut seen, mut looks, mut last) = (0, 0, began);
        loop {
            let stays = if self.led.load(Ordering::Acquire) {
                looks < SPINS || last.elapsed() < PATIENCE
            } else {
                looks < SPINS && began.elapsed() < PATIENCE
            };
            if !stays {
                return seen;
            }
            let round = self.round.load(Ordering::Acquire);
            if round == seen {
                wait(&mut looks);
                continue;
            }
            (seen, looks) = (round, 0);
            self.busy.fetch_add(1, Ordering::SeqCst);
            // SAFETY: tasks live until the leader has put null in their place and then seen nobody busy; this thread was
            // busy before it read the address (one order of all four, `SeqCst`).
            if let Some(tasks) = unsafe { self.tasks.load(Ordering::SeqCst).as_ref() }
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take(member, tasks)))
            {
                tasks.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
            last = Instant::now();
        }
    }
}

/// Takes the tasks back when dropped, also by a leader's task that panics: waits until no member does any.
struct TakenBack<'a>(&'a Team);

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        self.0.tasks.store(ptr::null_mut(), Ordering::SeqCst);
        let mut looks = 0;
        while self.0.busy.load(Ordering::SeqCst) != 0 {
            wait(&mut looks);
        }
    }
}

/// What a thread does between two looks for work: first nothing, then what rayon has to do, and if that is nothing it lets others
/// have the core.
fn wait(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks < SPINS {
        std::hint::spin_loop();
    } else if std::thread::panicking() || !matches!(rayon::yield_now(), Some(Yield::Executed)) {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests;
