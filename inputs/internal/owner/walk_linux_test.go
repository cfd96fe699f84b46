package owner

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/procfs"
)

// A limited context is done after a number of checks.
type limited struct {
	context.Context
	left int
}

func (l *limited) Err() error {
	if l.left--; l.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestSearchCutByTheDeadlineGoesOn: the deadline stops the search repeatedly. Each time it is
// reported, and the search continues where it stopped until the owner is found.
func TestSearchCutByTheDeadlineGoesOn(t *testing.T) {
	f := newFinder(t, rarely())
	_, s := listen(t)
	f.Add(s)
	updates := 0
	for ; s.Status != Resolved; updates++ {
		report := f.Update(&limited{t.Context(), 8}, time.Now().Add(time.Duration(updates)*time.Second))
		if s.Status != Resolved && (report.Partial == "" || s.Status != Pending) {
			t.Fatalf("after %d updates: %q, %s", updates, report.Partial, s.Status)
		}
		if updates > 10000 {
			t.Fatal("never found")
		}
	}
	expect(t, s, os.Getpid())
	if updates < 2 {
		t.Errorf("only %d updates: the search was not cut", updates)
	}
}

// TestSearchForAnUnownedSocketEnds after one lap, although the deadline stops it every time,
// and the next one begins only when it is due.
func TestSearchForAnUnownedSocketEnds(t *testing.T) {
	f := newFinder(t, rarely())
	s := &Socket{Inode: 1} // of no socket
	f.Add(s)
	now := time.Now()
	updates := 0
	for ; s.search; updates++ {
		f.Update(&limited{t.Context(), 20}, now)
		if updates > 10000 {
			t.Fatal("the search does not end")
		}
	}
	if updates < 2 {
		t.Errorf("only %d updates: the search was not cut", updates)
	}
	if s.Status == Resolved || f.refreshed.IsZero() {
		t.Errorf("%s, refreshed %v", s.Status, f.refreshed)
	}
	for s.wait == 0 || !s.retry.After(now) {
		f.Update(t.Context(), now)
	}
	if report := f.Update(t.Context(), now.Add(time.Hour)); report.Walked {
		t.Error("it is searched again at once")
	}
}

// TestOneLargeProcessDoesNotDelayTheSearch: a process that takes longer than the time
// available does not keep the search from all others.
func TestOneLargeProcessDoesNotDelayTheSearch(t *testing.T) {
	f := newFinder(t, rarely())
	file, s := listen(t)
	a := hold(t, file)
	f.Add(s)
	now := time.Now()
	for updates := 0; f.refreshed.IsZero(); updates++ {
		// One check lets it begin a process; the next one stops it there.
		f.Update(&limited{t.Context(), 1}, now)
		if updates > 100000 {
			t.Fatal("the search does not end")
		}
	}
	expect(t, s, os.Getpid(), a.Process.Pid)
}

// TestUnowned: the search for a socket that nobody holds is repeated, less and less
// often.
func TestUnowned(t *testing.T) {
	f := newFinder(t, Options{Verify: time.Minute, Refresh: 10 * time.Minute, Members: func(string) []int { return nil }})
	s := &Socket{Inode: 1} // of no socket
	f.Add(s)
	now := time.Now()
	start := now
	var walks []int
	for now.Sub(start) < 31*time.Minute {
		report := f.Update(t.Context(), now)
		if report.Walked {
			walks = append(walks, int(now.Sub(start)/time.Second))
		}
		want := None
		if f.report.Refused > 0 {
			want = Unreadable
		}
		if report.Walked && s.Status != want || s.Status == Resolved || s.Status == Pending {
			t.Fatalf("after %v: %s, expected %s", now.Sub(start), s.Status, want)
		}
		now = now.Add(10 * time.Second)
	}
	if want := []int{0, 10, 70, 190, 430, 910, 1510}; !slices.Equal(walks, want) {
		t.Errorf("searched after %v seconds, expected %v", walks, want)
	}
}

// TestInFlight: the next Update finds a socket that was being passed between two processes.
func TestInFlight(t *testing.T) {
	f := newFinder(t, rarely())
	file, s := listen(t)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	if err := unix.Sendmsg(ends[0], []byte{0}, unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	file.Close()
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	if s.Status != None && s.Status != Unreadable || len(s.Holders) != 0 {
		t.Errorf("on its way it is %s, held by %v", s.Status, pids(s))
	}
	buf := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(ends[1], make([]byte, 1), buf, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	f.Update(t.Context(), now.Add(time.Second))
	expect(t, s, os.Getpid())
}

// TestThreadsFiles finds a socket that is held only by a thread other than the first one, in
// its own table of files.
func TestThreadsFiles(t *testing.T) {
	var st unix.Stat_t
	ownFiles(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Listen(fd, 1), unix.Fstat(fd, &st))
	})
	for _, cut := range []int{1 << 30, 100} {
		f := newFinder(t, rarely())
		s := &Socket{Inode: st.Ino}
		f.Add(s)
		now := time.Now()
		for updates := 0; s.Status == Pending && updates < 10000; updates++ {
			f.Update(&limited{t.Context(), cut}, now)
		}
		if cut == 1<<30 {
			expect(t, s, os.Getpid())
		}
		f.Update(t.Context(), now.Add(time.Second))
		expect(t, s, os.Getpid())
		f.Update(t.Context(), now.Add(never)) // verified, and searched again
		expect(t, s, os.Getpid())
	}
}

// ownFiles starts a thread, not the first one, with its own table of files, which is a copy;
// prepare is called on it. It ends with the test.
func ownFiles(t *testing.T, prepare func() error) {
	t.Helper()
	ready, done := make(chan error), make(chan struct{})
	t.Cleanup(func() { close(done) })
	var thread func()
	thread = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its files
		if unix.Gettid() == os.Getpid() {
			go thread()
			<-done
			return
		}
		err := unix.Unshare(unix.CLONE_FILES)
		if err == nil {
			err = prepare()
		}
		ready <- err
		<-done
	}
	go thread()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}

// TestThreadsFilesAreCopies: a process that holds a socket by the files of two of its
// threads is counted once.
func TestThreadsFilesAreCopies(t *testing.T) {
	file, s := listen(t)
	other := hold(t, file)
	ownFiles(t, func() error { return nil })
	f := newFinder(t, rarely())
	f.Add(s)
	f.Add(&Socket{Inode: 1 << 62}) // held by nobody: threads are searched for it
	f.Update(t.Context(), time.Now())
	expect(t, s, os.Getpid(), other.Process.Pid)
}

// TestSocketIsPendingWhileThreadsAreSearched: it is pending until the search among threads
// has ended, then none or unreadable.
func TestSocketIsPendingWhileThreadsAreSearched(t *testing.T) {
	if testing.Short() {
		t.Skip("searches again with every budget")
	}
	ownFiles(t, func() error { return nil })
	for budget := 1; ; budget += 7 {
		f := newFinder(t, rarely())
		s := &Socket{Inode: 1 << 62}
		f.Add(s)
		report := f.Update(&limited{t.Context(), budget}, time.Now())
		if (s.Status == Pending) != (report.Partial != "") {
			t.Fatalf("with %d steps: %s, partial %q", budget, s.Status, report.Partial)
		}
		for updates := 0; s.search; updates++ {
			f.Update(&limited{t.Context(), budget}, time.Now())
			if updates > 10000 {
				t.Fatalf("with %d steps each the search does not end", budget)
			}
		}
		if report.Partial == "" {
			return
		}
	}
}

// TestLargeProcessOfTheSameCgroupDoesNotDelayTheSearch: all others are searched even if one
// in a socket's cgroup has more files than there is time for.
func TestLargeProcessOfTheSameCgroupDoesNotDelayTheSearch(t *testing.T) {
	held, other := listen(t)
	holder := hold(t, held)
	held.Close()
	options := rarely()
	options.Members = func(string) []int { return []int{os.Getpid()} }
	f := newFinder(t, options)
	f.Add(&Socket{Inode: 1 << 62, Cgroup: "/near"}) // held by nobody
	f.Add(other)
	now := time.Now()
	for updates := 0; other.Status == Pending && updates < 10000; updates++ {
		// One check lets it begin a process; the next one stops it there.
		f.Update(&limited{t.Context(), 1}, now.Add(time.Duration(updates)*10*time.Second))
	}
	expect(t, other, holder.Process.Pid)
}

// A during context calls a function at its first check.
type during struct {
	context.Context
	do func()
}

func (d *during) Err() error {
	if d.do != nil {
		d.do()
		d.do = nil
	}
	return nil
}

// TestHandover finds the next holder of a known socket that is passed to a new process
// during a walk.
func TestHandover(t *testing.T) {
	f := newFinder(t, Options{Verify: never, Refresh: time.Minute, Members: func(string) []int { return nil }})
	file, s := listen(t)
	before := hold(t, file)
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	expect(t, s, os.Getpid(), before.Process.Pid)
	var after *exec.Cmd
	f.Update(&during{t.Context(), func() {
		after = hold(t, file)
		file.Close()
		end(before)
	}}, now.Add(2*time.Minute))
	expect(t, s, after.Process.Pid)
}

// TestThreadsFilesWithManyProcesses: the same if there are processes with higher pids,
// and no walk ends within one Update.
func TestThreadsFilesWithManyProcesses(t *testing.T) {
	var st unix.Stat_t
	ownFiles(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.Listen(fd, 1), unix.Fstat(fd, &st))
	})
	for range 20 {
		hold(t, os.Stdin)
	}
	for _, ownPIDs := range []bool{true, false} { // kcmp(2) works only for our own pids
		for _, budget := range []int{1, 2, 7} {
			h := host.Find("/proc")
			h.OwnPIDs = ownPIDs
			fs, err := procfs.Open(h)
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close()
			f, err := NewFinder(fs, rarely())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := &Socket{Inode: st.Ino}
			f.Add(s)
			for updates := 0; s.Status == Pending; updates++ {
				f.Update(&limited{t.Context(), budget}, time.Now())
				if updates > 100000 {
					t.Fatalf("own pids %v, with %d steps each the search does not end", ownPIDs, budget)
				}
			}
			expect(t, s, os.Getpid())
		}
	}
}

// TestSocketOfALaterTimeIsNotProvenUnowned: a socket that was added during
// a walk stays pending: a process that the walk has passed may hold it.
func TestSocketOfALaterTimeIsNotProvenUnowned(t *testing.T) {
	h := newFakeHost(t)
	h.process(10, 1, "/a.service", 7)
	h.process(20, 2, "/b.service", 7)
	early, late := &Socket{Inode: 8}, &Socket{Inode: 9}
	f := h.finder(rarely(), early)
	now := time.Now()
	if report := f.Update(&limited{t.Context(), 4}, now); early.Status != Pending || report.Partial == "" || f.walk == nil {
		t.Fatalf("%s, partial %q: the walk was not cut", early.Status, report.Partial)
	}
	f.Add(late)
	for f.walk.number == 1 {
		f.Update(&limited{t.Context(), 1}, now)
		if f.walk == nil || f.walk.number == 1 && early.Status != Pending {
			t.Fatalf("walk %+v, %s", f.walk, early.Status)
		}
	}
	if early.Status != None || late.Status != Pending {
		t.Errorf("after the walk that began before it: %s, and %s of the one that was there", late.Status, early.Status)
	}
	f.Update(t.Context(), now)
	if late.Status != None {
		t.Errorf("after the next walk: %s", late.Status)
	}
}

// TestNoneMeansProvenUnowned only if everything on the host was read.
func TestNoneMeansProvenUnowned(t *testing.T) {
	const hidden = "processes outside one pid namespace are not visible"
	for _, test := range []struct {
		name   string
		make   func(h fakeHost)
		hidden string
		want   Status
	}{
		{name: "all was looked at", make: func(fakeHost) {}, want: None},
		{name: "a process cannot be read", make: func(h fakeHost) { h.remove("10/fd"); h.write("10/fd", "") }, want: Unreadable},
		{name: "a child pid namespace", make: func(h fakeHost) { h.remove("2") }, hidden: hidden, want: Unreadable},
		{name: "hidepid", make: func(h fakeHost) { h.remove("1") }, hidden: "processes of other users are not visible (hidepid)", want: Unreadable},
		{name: "an io_uring without sockets", make: func(h fakeHost) {
			h.link(10, 5, "anon_inode:[io_uring]")
			h.write("10/fdinfo/5", "UserFiles:\t1\n    0: /x\nUserBufs:\t0\n")
		}, want: None},
		{name: "a busy io_uring", make: func(h fakeHost) {
			h.link(10, 5, "anon_inode:[io_uring]")
			h.write("10/fdinfo/5", "pos:\t0\n")
		}, want: Unreadable},
		{name: "an io_uring that cannot be read", make: func(h fakeHost) {
			h.link(10, 5, "anon_inode:[io_uring]")
			h.write("10/fdinfo/5/", "")
		}, want: Unreadable},
		{name: "files of a thread that cannot be read", make: func(h fakeHost) {
			h.write("10/task/10/x", "")
			h.write("10/task/11/fd", "")
			h.write("10/task/12/fd/", "")
		}, want: Unreadable},
	} {
		h := newFakeHost(t)
		h.process(10, 1, "/a.service", 7)
		test.make(h)
		s := &Socket{Inode: 8}
		f := h.finder(rarely(), s)
		if report := f.Update(t.Context(), time.Now()); s.Status != test.want || report.Hidden != test.hidden {
			t.Errorf("%s: %s, hidden %q, want %s, %q", test.name, s.Status, report.Hidden, test.want, test.hidden)
		}
	}
}
