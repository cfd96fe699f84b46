package users

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// A fakeHost has an empty root directory.
type fakeHost struct {
	t    *testing.T
	root string
	host.Host
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	proc := t.TempDir()
	f := &fakeHost{t: t, root: filepath.Join(proc, "1/root"), Host: host.Host{Proc: proc}}
	for _, dir := range []string{"etc", "run/systemd/userdb"} {
		if err := os.MkdirAll(filepath.Join(f.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// write replaces a file below the root, or removes it if its text is "".
func (f *fakeHost) write(name, text string) {
	f.t.Helper()
	name = filepath.Join(f.root, name)
	if err := os.RemoveAll(name); err != nil {
		f.t.Fatal(err)
	}
	if text == "" {
		return
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeHost) names() *Names {
	n := New(f.Host, 10*time.Minute)
	f.t.Cleanup(n.Close)
	return n
}

func setOf(uids ...uint32) map[uint32]bool {
	set := make(map[uint32]bool)
	for _, uid := range uids {
		set[uid] = true
	}
	return set
}

// shown returns the names of uids.
func shown(n *Names, uids ...uint32) []string {
	var names []string
	for _, uid := range uids {
		names = append(names, n.Name(uid))
	}
	return names
}

// soon fails unless a condition holds within a minute.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute it is not so that %s", what)
		}
	}
}

func TestNamesAreThoseOfTheHost(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "admin:x:0:0:::\nweb:x:1000:0:::\n")
	f.serve(known(map[uint32]string{0: "never asked", 4242: "ldap user", 70000: "vu-box-0"}))
	n := f.names()
	uids := []uint32{0, 1000, 4242, 70000, 55555}
	if !n.Update(t.Context(), setOf(uids...), time.Now()) {
		t.Error("nothing has changed")
	}
	if diff := cmp.Diff([]string{"admin", "web", "ldap user", "vu-box-0", "55555"}, shown(n, uids...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n.Update(t.Context(), setOf(uids...), time.Now()) || n.Err() != nil {
		t.Errorf("something has changed, or %v", n.Err())
	}
}

func TestNamesStayWhileTheirSourcesFail(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "web:x:1000:0:::\n")
	stop := f.serve(known(map[uint32]string{4242: "remote"}))
	n := f.names()
	now := time.Now()
	step := func(changed bool, want ...string) {
		t.Helper()
		got := n.Update(t.Context(), setOf(1000, 4242), now)
		if diff := cmp.Diff(want, shown(n, 1000, 4242)); diff != "" || got != changed {
			t.Errorf("changed %v, expected %v; (-want +got):\n%s", got, changed, diff)
		}
	}
	step(true, "web", "remote")
	f.write("etc/passwd", "")
	stop()
	now = now.Add(10 * time.Minute)
	step(false, "web", "remote")
	if n.Err() == nil {
		t.Error("no error")
	}
	f.serve(known(map[uint32]string{4242: "other"})) // and back
	f.write("etc/passwd", "www:x:1000:0:::\n")
	step(false, "web", "remote")
	now = now.Add(time.Minute)
	step(true, "www", "other")
	if n.Err() != nil {
		t.Error(n.Err())
	}
	f.write("etc/passwd", "nobody:x:65534:0:::\n")
	now = now.Add(10 * time.Minute)
	step(true, "1000", "other")
}

// TestNamesArePendingUntilTheSourceAnswers: rules about users are undecided until then. A host
// without userdb has no other source.
func TestNamesArePendingUntilTheSourceAnswers(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "web:x:1000:0:::\n")
	n := f.names()
	now := time.Now()
	step := func(situation string, want bool) {
		t.Helper()
		before := n.Pending(4242)
		changed := n.Update(t.Context(), setOf(1000, 4242), now)
		now = now.Add(time.Minute)
		if before != want && !changed {
			t.Errorf("%s: Update reports no change", situation)
		}
		if got := n.Pending(4242); got != want || n.Pending(1000) {
			t.Errorf("%s: 4242 pending %v, want %v; 1000 pending %v", situation, got, want, n.Pending(1000))
		}
	}
	if !n.Pending(4242) {
		t.Error("not pending before the first lookup")
	}
	step("no userdb", false)
	f.write(multiplexerSocket, "nobody listens")
	step("a failure", true)
	f.write(multiplexerSocket, "")
	f.serve(known(nil))
	step("an answer", false)
}

// TestNamesArePendingUntilPasswdIsRead: until then the file may have a name for any user, even if
// userdb has none. A host without the file has none there.
func TestNamesArePendingUntilPasswdIsRead(t *testing.T) {
	n := newFakeHost(t).names()
	answers := make(chan tables)
	n.files.read = func(map[uint32]bool) tables { return <-answers }
	now := time.Now()
	// step updates the names of uids, while a read gives an answer, if any.
	step := func(situation string, uids map[uint32]bool, answer *tables, want ...uint32) {
		t.Helper()
		if answer != nil {
			go func() { answers <- *answer }()
		}
		n.Update(t.Context(), uids, now)
		now = now.Add(retry)
		var pending []uint32
		for _, uid := range slices.Sorted(maps.Keys(uids)) {
			if n.Pending(uid) {
				pending = append(pending, uid)
			}
		}
		if diff := cmp.Diff(want, pending); diff != "" {
			t.Errorf("%s: pending (-want +got):\n%s", situation, diff)
		}
	}
	failed := &tables{err: unix.EMFILE}
	step("a failure", setOf(1000), failed, 1000)
	step("there is no file", setOf(1000), &tables{absent: true, err: fs.ErrNotExist})
	step("a failure for a new user", setOf(1000, 1001), failed, 1001)
	step("an answer", setOf(1000, 1001), &tables{names: map[uint32]string{1001: "web"}})
	now = now.Add(10 * time.Minute)
	step("a failure of what is known", setOf(1000, 1001), failed)
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	n.Update(cut, setOf(1002), now)
	if !n.Pending(1002) {
		t.Error("not pending while the file is being read")
	}
	answers <- tables{names: map[uint32]string{}}
}

// TestUserdbHangs: a user whose name only the service knows has a number until it answers;
// all other names are known at once.
func TestUserdbHangs(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "web:x:1000:0:::\n")
	answer := make(chan struct{})
	f.serve(func(request []byte) []byte {
		<-answer
		return known(map[uint32]string{4242: "remote"})(request)
	})
	n := f.names()
	cut, cancel := context.WithCancel(t.Context())
	cancel() // Update does not wait for longer than this
	n.Update(cut, setOf(4242), time.Now())
	soon(t, "the name in the file is known", func() bool {
		return n.Update(t.Context(), setOf(1000, 4242), time.Now()) && n.Name(1000) == "web"
	})
	if n.Name(4242) != "4242" {
		t.Errorf("the other is %q", n.Name(4242))
	}
	close(answer)
	soon(t, "the name is known", func() bool {
		return n.Update(t.Context(), setOf(1000, 4242), time.Now()) && n.Name(4242) == "remote"
	})
}

func TestSubordinateUIDsDoNotDelayNames(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "web:x:1000:0:::\n")
	f.write("etc/subuid", "web:100000:65536\n")
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	f.serve(func(request []byte) []byte {
		reply := known(map[uint32]string{4242: "remote"})(request)
		if bytes.Contains(reply, []byte("NoRecordFound")) {
			<-end // a service queries remote servers for unknown names
		}
		return reply
	})
	n := f.names()
	uids := setOf(4242)
	for uid := range uint32(1000) {
		uids[100000+uid] = true
	}
	soon(t, "the name is known", func() bool {
		n.Update(t.Context(), uids, time.Now())
		return n.Name(4242) == "remote"
	})
}

func TestCloseEndsWhatHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a second")
	}
	t.Parallel()
	f := newFakeHost(t)
	answer := make(chan struct{})
	t.Cleanup(func() { close(answer) })
	f.serve(func([]byte) []byte { <-answer; return nil })
	n := New(f.Host, time.Minute)
	n.files.read = func(map[uint32]bool) tables { <-answer; return tables{} }
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	n.Update(cut, setOf(4242), time.Now())
	n.Close()
}

func TestUIDsCountAsTheirUser(t *testing.T) {
	f := newFakeHost(t)
	f.write("etc/passwd", "root:x:0:0:::\nweb:x:1000:0:::\nsub:x:100001:0:::\nowner:x:1001:0:::\n")
	f.write("etc/subuid", "web:100000:65536\n1001:200000:65536\n4242:300000:65536\n1003:400000:65536\nroot:500000:100\nweb:500010:10\n")
	f.serve(known(map[uint32]string{4242: "remote"}))
	n := f.names()
	wants := map[uint32]string{
		0: "root", 1000: "web",
		100000: "web", 165535: "web", 165536: "", 99999: "",
		100001: "sub", // its own name comes first
		200000: "owner", 300000: "remote",
		400000: "", // of a user without a name
		500000: "root", 500009: "root", 500010: "web", 500019: "web", 500020: "root", 500100: "",
		4294967294: "",
	}
	uids := make(map[uint32]bool)
	for uid := range wants {
		uids[uid] = true
	}
	n.Update(t.Context(), uids, time.Now())
	got := make(map[uint32]string)
	for uid := range wants {
		got[uid] = n.Person(uid)
	}
	if diff := cmp.Diff(wants, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f.write("etc/subuid", "")
	if !n.Update(t.Context(), uids, time.Now().Add(10*time.Minute)) || n.Person(100000) != "" {
		t.Errorf("without /etc/subuid the uid 100000 counts to %q", n.Person(100000))
	}
	if n.Err() != nil {
		t.Error(n.Err())
	}
}
