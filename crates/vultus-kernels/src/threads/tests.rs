use std::collections::HashSet;
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::Duration;

use rayon::ThreadPoolBuilder;

use super::*;

/// Does `work` with a team of so many threads.
fn in_team_of<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| lead(work))
}

/// How often each task below `count` runs.
fn runs(count: usize, share: impl FnOnce(&(dyn Fn(usize) + Sync))) -> Vec<usize> {
    let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    share(&|task| {
        runs[task].fetch_add(1, Ordering::Relaxed);
    });
    runs.into_iter().map(AtomicUsize::into_inner).collect()
}

/// Held by a test that uses the global pool from outside, so that no other test has it.
fn pool_is_free() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn work_is_done_inside_and_one_piece_at_a_time() {
    let _free = pool_is_free();
    let (inside, nested, beside) = enter(|| {
        let beside = thread::scope(|scope| scope.spawn(|| enter(rayon::current_thread_index)).join().unwrap());
        (rayon::current_thread_index(), enter(rayon::current_thread_index), beside)
    });
    assert!(inside.is_some());
    assert_eq!(inside, nested);
    assert_eq!(beside, None);
    // A panic reaches the caller and keeps nobody out.
    assert!(catch_unwind(|| enter(|| panic!("as asked"))).is_err());
    assert!(enter(rayon::current_thread_index).is_some());
}

#[test]
fn each_task_runs_once() {
    for threads in [1, 2, 5] {
        in_team_of(threads, || {
            for count in (0..40).chain([1000, 4096]) {
                assert_eq!(runs(count, |work| share(count, work)), vec![1; count], "{count} tasks, {threads} threads");
            }
        });
    }
    // Without a team.
    assert_eq!(runs(100, |work| share(100, work)), vec![1; 100]);
}

/// Whether all threads of a team have tasks of one kernel, of a thousand at most: a thread that is late misses some.
fn all_take_part(threads: usize) -> bool {
    (0..1000).any(|_| {
        let seen = Mutex::new(HashSet::new());
        share(threads, |_| {
            sleep(Duration::from_millis(2));
            seen.lock().unwrap().insert(thread::current().id());
        });
        seen.into_inner().unwrap().len() == threads
    })
}

#[test]
fn all_threads_of_a_team_take_part() {
    in_team_of(3, || (0..20).for_each(|_| assert!(all_take_part(3))));
}

/// The second member is late, and takes up a part of a task of the first, who waits for it and finds that a member is wanted.
#[test]
fn nobody_joins_for_good_in_the_middle_of_a_task() {
    let (done, all_done) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..6 {
            let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let late = AtomicBool::new(true);
            pool.scope(|scope| {
                scope.spawn(|_| {
                    while late.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                });
                lead(|| {
                    share(2, |task| {
                        if task == 0 {
                            sleep(Duration::from_millis(200));
                        } else {
                            let first = || {
                                late.store(false, Ordering::Release);
                                sleep(Duration::from_millis(20));
                            };
                            let part = || sleep(Duration::from_millis(50));
                            rayon::join(first, || rayon::join(part, part));
                        }
                    });
                    late.store(false, Ordering::Release);
                });
            });
        }
        done.send(()).unwrap();
    });
    assert!(all_done.recv_timeout(Duration::from_secs(60)).is_ok(), "the threads wait for each other");
}

#[test]
fn from_outside_one_leads_where_it_stands_and_others_do_their_work_without_a_team() {
    let _free = pool_is_free();
    let team = || (!LED.get().is_null()).then(|| OWN.with(|own| Arc::as_ptr(own.get().unwrap())));
    let all = rayon::current_num_threads().min(MOST_OUTSIDE);
    let first = lead(team);
    assert!(first.is_some());
    for pause in [0, 0, 20] {
        sleep(Duration::from_millis(pause)); // a long one lets the members go
        lead(|| {
            assert_eq!(team(), first);
            let here = thread::current().id();
            assert!((0..1000).any(|_| {
                let seen = Mutex::new(HashSet::new());
                share(all, |_| {
                    sleep(Duration::from_millis(2));
                    seen.lock().unwrap().insert(thread::current().id());
                });
                let seen = seen.into_inner().unwrap();
                assert!(seen.contains(&here), "the leader does tasks itself");
                seen.len() == all
            }));
            assert_eq!(runs(100, |work| share(100, work)), vec![1; 100]);
            let beside = || lead(|| (LED.get().is_null(), runs(100, |work| share(100, work))));
            let (without_team, runs) = thread::scope(|scope| scope.spawn(beside).join().unwrap());
            assert!(without_team);
            assert_eq!(runs, vec![1; 100]);
        });
        assert!(LED.get().is_null());
        // Who panics keeps nobody out.
        assert!(catch_unwind(|| lead(|| share(16, |task| assert_ne!(task, 3)))).is_err());
    }
}

#[test]
fn two_teams_in_one_pool_go_on() {
    let (done, all_done) = mpsc::channel();
    thread::spawn(move || {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let team = || lead(|| (0..200).map(|_| runs(30, |work| share(30, work))).all(|runs| runs == vec![1; 30]));
        done.send(pool.join(team, team)).unwrap();
    });
    assert_eq!(all_done.recv_timeout(Duration::from_secs(60)), Ok((true, true)));
}

#[test]
fn who_has_done_its_own_tasks_takes_others() {
    in_team_of(2, || {
        let done = AtomicUsize::new(0);
        // The first task takes until all others, half of which are behind it, are done.
        share(64, |task| {
            if task == 0 {
                while done.load(Ordering::Acquire) != 63 {
                    thread::yield_now();
                }
            } else {
                done.fetch_add(1, Ordering::Release);
            }
        });
    });
}

#[test]
fn a_team_outlasts_a_pause() {
    in_team_of(2, || {
        for _ in 0..3 {
            sleep(Duration::from_millis(100)); // long enough for a member to go
            assert!(all_take_part(2));
        }
    });
}

#[test]
fn tasks_share_out_tasks_of_their_own() {
    for threads in [1, 2, 5] {
        let sum = in_team_of(threads, || {
            let sum = AtomicUsize::new(0);
            share(7, |outer| {
                share(9, |inner| {
                    sum.fetch_add(outer * 9 + inner, Ordering::Relaxed);
                });
            });
            sum.into_inner()
        });
        assert_eq!(sum, (0..63).sum());
    }
}

#[test]
fn a_panic_of_any_task_reaches_the_leader_and_the_team_goes_on() {
    in_team_of(2, || {
        for wrong in [0, 1, 7, 8, 15] {
            let caught = catch_unwind(|| share(16, |task| assert_ne!(task, wrong, "as asked")));
            let message = caught.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("as asked"), "{message}");
            assert!(all_take_part(2));
            assert_eq!(runs(16, |work| share(16, work)), vec![1; 16]);
        }
    });
    // One that nobody catches ends the work, and its team.
    assert!(catch_unwind(|| in_team_of(2, || share(16, |task| assert_ne!(task, 12)))).is_err());
}

#[test]
fn runs_chunks_and_items_cover_everything() {
    in_team_of(2, || {
        for count in [0, 1, 5, 12, 13] {
            assert_eq!(runs(count, |work| share_runs(count, 4, work)), vec![1; count]);

            let mut values = vec![0.0; count];
            share_chunks(&mut values, 4, |task, chunk| {
                for (index, value) in chunk.iter_mut().enumerate() {
                    *value += (4 * task + index) as f32;
                }
            });
            assert_eq!(values, (0..count).map(|index| index as f32).collect::<Vec<_>>());

            let mut items = vec![String::new(); count];
            share_items(items.iter_mut(), |task, item| item.push_str(&task.to_string()));
            assert_eq!(items, (0..count).map(|index| index.to_string()).collect::<Vec<_>>());
        }
    });
}
